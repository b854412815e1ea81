"""The cluster's DNS, by UDP and TCP. Shell."""

from __future__ import annotations

from vpclab.checks.check import Check, NotApplicableError, require
from vpclab.checks.ground import Ground, WebPod
from vpclab.checks.services import cluster_ip_of

DOMAIN = "svc.cluster.local"


def _require_dns(ground: Ground) -> list[WebPod]:
    if not ground.api.pods("kube-system", "k8s-app=kube-dns"):
        raise NotApplicableError("the cluster has no pods with k8s-app=kube-dns")
    return [*ground.web_pods(), *ground.fillers()[-1:]]


def names(ground: Ground) -> str:
    """Resolve a Service's name in a pod as programs do, and fetch by it."""
    pods, wanted = _require_dns(ground), str(cluster_ip_of(ground, "web"))
    whole = f"web.{ground.namespace}.{DOMAIN}"
    asked = ("web", whole)
    each = ground.ask_each(pods, *({"do": "resolve", "name": name} for name in asked))
    for pod, answers in zip(pods, each, strict=True):
        for name, answer in zip(asked, answers, strict=True):
            found = answer.get("addresses", answer.get("error"))
            require(found == [wanted], f"{pod.name} resolves {name} to {found}, not to {wanted}")
    ground.fetch(pods[0].name, "web", 80)
    return f"web and {whole} are {wanted} in every pod, and http://web answers"


def by_udp(ground: Ground) -> str:
    """Ask the resolver of pods by UDP."""
    return _asked(ground, tcp=False)


def by_tcp(ground: Ground) -> str:
    """Ask the resolver of pods by TCP, as for a long answer."""
    return _asked(ground, tcp=True)


def _asked(ground: Ground, *, tcp: bool) -> str:
    pods, wanted = _require_dns(ground), str(cluster_ip_of(ground, "web"))
    name, servers = f"web.{ground.namespace}.{DOMAIN}", set()
    each = ground.ask_each(pods, {"do": "dns", "name": name, "tcp": tcp})
    for pod, (answer,) in zip(pods, each, strict=True):
        require("error" not in answer, f"{pod.name}: {name}: {answer.get('error')}")
        require(answer["addresses"] == [wanted], f"{name} is {answer['addresses']}, not {wanted}")
        servers.add(answer["server"])
    return f"{', '.join(sorted(servers))} answers {len(pods)} pods"


def headless(ground: Ground) -> str:
    """Resolve a headless Service, which names its pods."""
    _require_dns(ground)
    pods = ground.web_pods()
    name = f"web-each.{ground.namespace}.{DOMAIN}"
    (answer,) = ground.ask(pods[0].name, {"do": "dns", "name": name})
    require("error" not in answer, f"{pods[0].name}: {name}: {answer.get('error')}")
    found = set(answer["addresses"])
    require(found == {str(pod.address) for pod in pods}, f"{name} is {sorted(found)}")
    return f"{name} is its {len(found)} pods"


def absent(ground: Ground) -> str:
    """Resolve a name that is not there, which is answered, too."""
    pods = _require_dns(ground)
    name = f"no-such.{ground.namespace}.{DOMAIN}"
    (answer,) = ground.ask(pods[0].name, {"do": "dns", "name": name})
    require("error" not in answer, f"{name}: {answer.get('error')}")
    require(answer["code"] == NO_SUCH_NAME, f"{name} was answered with code {answer['code']}")
    return f"{answer['server']} says that {name} is not there"


NO_SUCH_NAME = 3
"""NXDOMAIN."""

CHECKS = (
    Check(
        "dns",
        "a Service's name resolves in every pod, short and whole, and answers",
        "CoreDNS, or UDP from pods to it",
        names,
    ),
    Check(
        "dns-udp",
        "the cluster's DNS answers every pod by UDP",
        "the way of datagrams from pods to CoreDNS' pods: security groups, kube-proxy",
        by_udp,
    ),
    Check(
        "dns-tcp",
        "the cluster's DNS answers every pod by TCP, which long answers need",
        "port 53 is open for UDP only: security groups",
        by_tcp,
    ),
    Check(
        "dns-absent",
        "a name that is not there is answered as such, and not with silence",
        "CoreDNS does not answer for the cluster's domain",
        absent,
    ),
    Check(
        "headless",
        "a headless Service's name is the addresses of its pods",
        "CoreDNS or the EndpointSlices",
        headless,
    ),
)
"""All, in their order."""
