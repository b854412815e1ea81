"""The laws of a daemon's world, in the words of who would suffer. Pure."""

from __future__ import annotations

from enum import StrEnum


class Law(StrEnum):
    """The laws, in the words of who would suffer."""

    OWNER = "an address has one owner"
    KEPT = "a pod keeps its address"
    COOLED = "an address cools before it is given again"
    ANSWERED = "an ADD is answered before its deadline"
    WIRED = "a pod that was answered has its wire"
    LIMIT = "no more than the instance takes is asked for"
    BLIND = "a call of unknown outcome is not repeated without looking"
    INTENT = "the journal knows of a call before EC2 does"
    TOKEN = "an intent makes one ENI"
    ALIVE = "the daemon lives, and nothing in it breaks"
    BOOKS = "the model's own books add up"
    LEAKED = "no ENI is left behind"
    SETTLED = "every intent comes to its end"
    TRUE = "journal and pool are what EC2 shows"
    TARGET = "the pool is at its target"
    SERVED = "no pod waits while there is room"
    KERNEL = "guards, rules and tables are as desired"
    WITNESSES = "leases, pods and wires are the same"
    CALM = "a pool at rest asks for nothing"
    GUARDED = "an address is guarded before a pod has it"
    PURGED = "the flows of an address are gone before it is given again"
    FORGOTTEN = "what EC2 has with us is not forgotten"
    NOTED = "what EC2 made for us is in the journal"
    PROMPT = "no ADD waits while an address is free"
    ENOUGH = "no more is asked for than pods need"
    GOING = "an instance that ends asks for nothing new"
    OUTLIVES = "no ENI outlives its instance"
    TOLD = "what holds is what was asked for last and can be"
    PLACED = "a new ENI goes where it was told to"
    ALONE = "what is another's is left alone"
    FORBIDDEN = "no call is made that the mode forbids"
    ELECTED = "only the elected sweeper deletes what others left, and nothing young"


class LawBrokenError(Exception):
    """A law does not hold."""

    def __init__(self, law: Law, sentence: str) -> None:
        super().__init__(law, sentence)  # as it travels between processes
        self.law, self.sentence = law, sentence

    def __str__(self) -> str:
        return f"{self.law.value}: {self.sentence}"
