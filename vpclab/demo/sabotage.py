"""What can be broken on purpose, each from outside the product, and who must notice. Shell.

A proof is worth what it can catch: the table's last column, taken together, names every
proof there is (a test holds that). Nothing here is imported by the demo's other parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpclab.demo.stage import Site, Stage


class Moment(StrEnum):
    """When a sabotage strikes."""

    BEFORE_DAEMONS = "before the daemons start"
    PODS_UP = "when the pods are up"
    DAEMON_DEAD = "while the daemon is dead"


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One thing that is broken: what a person reads, and the proofs that must notice."""

    name: str
    breaks: str
    caught_by: tuple[str, ...]
    moment: Moment
    strike: Callable[[Stage], None]


def _ip(site: Site, words: str) -> None:
    site.node.run(["ip", *words.split()])


def _second_link(stage: Stage, site: Site) -> str:
    """Return the link of the node's second ENI that carries pods."""
    carriers = {pod.eni_id for pod in stage.riding(site, primary=False)}
    eni = next(eni for eni in stage.enis_of(site) if eni.id in carriers)
    return site.links()[eni.mac]


def _wrong_table(stage: Stage) -> None:
    site = stage.sites[0]
    _ip(site, "route replace default via 10.0.1.1 dev ens5 onlink table 2")


def _no_snat(stage: Stage) -> None:
    for site in stage.sites:
        site.nft("flush chain ip enid masq")


def _overwrite_marks(stage: Stage) -> None:
    for site in stage.sites:
        site.nft("insert rule ip enid leave meta mark set meta mark and 0xff")


def _small_link(stage: Stage) -> None:
    site = stage.sites[1]
    _ip(site, f"link set dev {_second_link(stage, site)} mtu 1500")


def _no_cooldown(stage: Stage) -> None:
    for site in stage.sites:
        site.daemon.environment["IP_COOLDOWN_PERIOD"] = "0"


def _unrecorded_eni(stage: Stage) -> None:
    site, ec2 = stage.sites[1], stage.vpc.ec2
    (first,) = stage.enis_of(site)
    made = ec2.create_network_interface(
        SubnetId=first.subnet_id,
        TagSpecifications=[
            {
                "ResourceType": "network-interface",
                "Tags": [{"Key": "node.k8s.amazonaws.com/no_manage", "Value": "true"}],
            }
        ],
    )
    eni_id = made["NetworkInterface"]["NetworkInterfaceId"]
    ec2.attach_network_interface(
        NetworkInterfaceId=eni_id, InstanceId=site.node.instance_id, DeviceIndex=1
    )


def _delete_books(stage: Stage) -> None:
    for folder in ("/run/enid", "/var/lib/enid"):
        for path in stage.sites[0].node.path(folder).iterdir():
            if ".db" in path.name:
                path.unlink()


def _unchecked(stage: Stage) -> None:
    for eni in stage.vpc.enis():
        stage.vpc.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=eni.id, SourceDestCheck={"Value": False}
        )


def _all_rights(stage: Stage) -> None:
    for site in stage.sites:
        site.daemon.rights = None


def _flush_pods(stage: Stage) -> None:
    _ip(stage.sites[0], "route flush table 5120")


def _no_guards(stage: Stage) -> None:
    for site in stage.sites:
        _ip(site, "route flush table 5120 type unreachable")


def _no_spoof_guard(stage: Stage) -> None:
    for site in stage.sites:
        # Host veths share one MAC, so they are looked for by name.
        listed = site.node.run(["ip", "-br", "link", "show", "type", "veth"]).stdout.splitlines()
        names = [line.split("@")[0] for line in listed if line.startswith("eni")]
        site.node.worker.write_sysctls({f"net.ipv4.conf.{name}.rp_filter": "0" for name in names})


def _nat_inside(stage: Stage) -> None:
    stage.sites[0].nft(
        """table ip sabotage {
 chain post {
  type nat hook postrouting priority 90; policy accept;
  oifname "ens*" ip daddr 10.0.0.0/16 masquerade
 }
}
"""
    )


def _wrong_source(stage: Stage) -> None:
    site = stage.sites[0]
    rider = stage.riding(site, primary=False)[0]
    source = next(eni.primary for eni in stage.enis_of(site) if eni.id == rider.eni_id)
    route = site.node.run(["ip", "route", "show", "table", "5120", str(rider.address)]).stdout
    link = route.split(" dev ")[1].split()[0]
    _ip(site, f"route replace {rider.address} dev {link} table 5120 proto 151 src {source}")


def _stay_dead(stage: Stage) -> None:
    stage.restarts_daemon = False


def _take_eni(stage: Stage) -> None:
    eni = next(e for e in stage.enis_of(stage.sites[0]) if e.status == "attaching")
    shown = stage.vpc.ec2.describe_network_interfaces(NetworkInterfaceIds=[eni.id])
    attachment = shown["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
    stage.vpc.ec2.detach_network_interface(AttachmentId=attachment, Force=True)
    stage.vpc.ec2.delete_network_interface(NetworkInterfaceId=eni.id)


ALL = (
    Sabotage(
        "wrong-eni-table", "the table of a secondary ENI leads out by the primary one",
        ("own-eni", "pods-tcp", "no-drops"), Moment.PODS_UP, _wrong_table,
    ),
    Sabotage(
        "missing-snat", "pods' packets to the internet keep the pods' addresses",
        ("internet",), Moment.PODS_UP, _no_snat,
    ),
    Sabotage(
        "marks-overwritten", "mark bits 8 to 31, which are others', are cleared",
        ("foreign-marks",), Moment.PODS_UP, _overwrite_marks,
    ),
    Sabotage(
        "small-link", "a secondary ENI's link has an MTU of 1500",
        ("big-ping",), Moment.PODS_UP, _small_link,
    ),
    Sabotage(
        "no-cooldown", "IP_COOLDOWN_PERIOD=0: a freed address is given out at once",
        ("freed",), Moment.BEFORE_DAEMONS, _no_cooldown,
    ),
    Sabotage(
        "unrecorded-eni", "an ENI is attached that no daemon may manage",
        ("books", "no-leaks"), Moment.BEFORE_DAEMONS, _unrecorded_eni,
    ),
    Sabotage(
        "journal-deleted", "leases.db and journal.db are deleted before the restart",
        ("kill-leases",), Moment.DAEMON_DEAD, _delete_books,
    ),
    Sabotage(
        "source-check-off", "the VPC does not check sources (SourceDestCheck=false)",
        ("forged-node",), Moment.PODS_UP, _unchecked,
    ),
    Sabotage(
        "all-rights", "the daemon runs with every capability of root",
        ("rights",), Moment.BEFORE_DAEMONS, _all_rights,
    ),
    Sabotage(
        "routes-flushed", "the pods' routes vanish while the daemon is dead",
        ("kill-traffic",), Moment.DAEMON_DEAD, _flush_pods,
    ),
    Sabotage(
        "guards-removed", "addresses without a pod have no unreachable route",
        ("freed",), Moment.PODS_UP, _no_guards,
    ),
    Sabotage(
        "spoof-guard-off", "the pods' veths do not check sources (rp_filter 0)",
        ("forged-pod",), Moment.PODS_UP, _no_spoof_guard,
    ),
    Sabotage(
        "nat-inside", "somebody masquerades what goes to the VPC",
        ("pods-tcp", "pods-ping"), Moment.PODS_UP, _nat_inside,
    ),
    Sabotage(
        "wrong-source", "a pod's route gives the node a secondary ENI's address as source",
        ("nodes",), Moment.PODS_UP, _wrong_source,
    ),
    Sabotage(
        "stays-dead", "nobody starts the daemon again",
        ("kill-adds",), Moment.DAEMON_DEAD, _stay_dead,
    ),
    Sabotage(
        "eni-taken", "the ENI in flight is detached and deleted by somebody else",
        ("kill-eni",), Moment.DAEMON_DEAD, _take_eni,
    ),
)  # fmt: skip
"""Every sabotage there is."""

BY_NAME = {one.name: one for one in ALL}
