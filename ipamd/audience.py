"""Who may read `/metrics` and health, and what of it. Pure.

Scrapers are pods, so the port answers to the network unless a setting says otherwise. The node
itself is always answered: kubelet's probes come from there, and a daemon that they do not reach is
restarted.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from ipamd import wires
from ipamd.settings import Settings


@dataclass(frozen=True, slots=True)
class Audience:
    """*cidrs*: who is answered beside the node; None: everybody. *pods*: with their names."""

    metrics: bool = True
    cidrs: tuple[IPv4Network, ...] | None = None
    pods: bool = False

    def admits(self, peer: IPv4Address) -> bool:
        """Return whether *peer*, another than the node, is answered."""
        return self.metrics and (self.cidrs is None or any(peer in cidr for cidr in self.cidrs))


def is_node(peer: IPv4Address, own: IPv4Address) -> bool:
    """Return whether whoever asks at address *own* is the node: from that address, or loopback."""
    return peer == own or peer.is_loopback


def audience(settings: Settings) -> Audience:
    """Return what *settings* say. CIDRs of IPv6 alone are nobody's: nobody asks by IPv6."""
    limits = settings.metrics_cidrs
    return Audience(
        metrics=settings.metrics,
        cidrs=wires.networks(limits) if limits else None,
        pods=settings.metrics_pods,
    )
