"""Who sends whom which part of the gradients, so that they are added as the tree over shards says, with as few bytes as
that takes.

The blocks of ranks are neighbours in the tree, but need not be subtrees of it. A sum crosses ranks c times at the least
(`crossings`) until it is whole, and then comes to each of n ranks but one: c + n - 1 times the bytes of the gradients,
of all ranks together (docs/distributed.md proves it). The elements are cut into parts. Each part goes a way with few
messages, of the ranks that have sent the least so far; so all send about as much. This is `balanced`. Where the ranks
are a power of two, each with a subtree as large as the others', recursive halving (Rabenseifner 2004; Thakur,
Rabenseifner and Gropp 2005) and recursive doubling reach the same with the fewest messages: `halved`.
"""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from heapq import heappop, heappush
from itertools import groupby

from graphc.records import dataclass
from graphc.shard_tree import Span, middle, rank_bounds

PARTS = 96                          # into which the elements are cut: so even do the ranks send
SLACK = 4                           # parts that a rank may send more than another before a longer way is taken


@dataclass(frozen=True)
class Crossing:
    """Node `node` of the tree over shards, the children of which are not all of one rank: `left` and `right` are their
    numbers among such nodes, or, negative, ~rank of the rank that has all shards below. Those of the same height have
    nothing to do with each other."""
    node: Span
    height: int
    left: int
    right: int


def crossing_nodes(bounds: Sequence[int]) -> list[Crossing]:
    """All of them, each after those below it."""
    found: list[Crossing] = []

    def visit(low: int, high: int) -> int:
        rank = bisect_right(bounds, low) - 1
        if high <= bounds[rank + 1]:
            return ~rank
        left, right = visit(low, middle(low, high)), visit(middle(low, high), high)
        found.append(Crossing((low, high), 1 + max(found[n].height if n >= 0 else 0 for n in (left, right)), left,
                              right))
        return len(found) - 1
    visit(bounds[0], bounds[-1])
    return found


@dataclass(frozen=True)
class Way:
    """Of one part of the elements: the rank at which the sum at each node is, by number of the node, and (round, from,
    to) of the messages by which all ranks get the whole sum."""
    holders: tuple[int, ...]
    handed: tuple[tuple[int, int, int], ...]


def balanced(nodes: Sequence[Crossing], count: int) -> list[Way]:
    """The ways of as many equal parts of the elements, like ones beside each other."""
    sent = [0] * count                                  # by each rank so far
    found = []
    for _ in range(PARTS):
        holders = _cheapest(nodes, sent)
        for node, to in zip(nodes, holders):
            for child in (node.left, node.right):
                origin = holders[child] if child >= 0 else ~child
                sent[origin] += origin != to
        found.append(Way(holders, _handed(holders[-1], sent)))
    return sorted(found, key=lambda way: (way.holders[::-1], way.handed))


def _cheapest(nodes: Sequence[Crossing], sent: Sequence[int]) -> tuple[int, ...]:
    """Where the sums at nodes are, so that few of them cross ranks, sent by those who have sent little (the dynamic
    program of Sankoff 1975)."""
    fewest = min(sent)
    price = [SLACK + already - fewest for already in sent]
    costs: list[dict[int, int]] = []                    # of each node, by the rank at which its sum is
    for node in nodes:
        sides = [costs[child] if child >= 0 else {~child: 0} for child in (node.left, node.right)]
        brought = [min(cost + price[rank] for rank, cost in side.items()) for side in sides]
        costs.append({rank: sum(min(side.get(rank, least), least) for side, least in zip(sides, brought))
                      for side in sides for rank in side})
    holders = [0] * len(nodes)
    wanted = {len(nodes) - 1: -1}                       # by whom the sum at a node is wanted
    for number in reversed(range(len(nodes))):
        cost, to = costs[number], wanted[number]
        least = min(cost, key=lambda rank: (cost[rank] + price[rank], rank))
        holders[number] = to if to in cost and cost[to] <= cost[least] + price[least] else least
        wanted.update({child: holders[number] for child in (nodes[number].left, nodes[number].right) if child >= 0})
    return tuple(holders)


def _handed(owner: int, sent: list[int]) -> tuple[tuple[int, int, int], ...]:
    """The messages by which `owner` and others hand a part on: to those first who have sent little, by those who have
    sent the least, in few rounds. `sent` counts them."""
    last = (len(sent) - 1).bit_length() + 1
    having, messages = [(sent[owner], 0, owner)], []
    for to in sorted(set(range(len(sent))) - {owner}, key=lambda rank: (sent[rank], rank)):
        _, number, origin = heappop(having)
        messages.append((number, origin, to))
        sent[origin] += 1
        heappush(having, (sent[origin], number, origin))
        if number + 1 < last:
            heappush(having, (sent[to], number + 1, to))
    return tuple(messages)


def halved(nodes: Sequence[Crossing], count: int) -> list[Way]:
    """The ways of `count` equal parts of the elements where the ranks are a power of two and blocks are equal subtrees:
    of the part that rank r owns the sum at a node is at the rank below it that is r as far as bits below it go."""
    rounds = count.bit_length() - 1
    found = []
    for part in range(count):
        owner = int(f"{part:0{rounds}b}"[::-1], 2)      # so that what is sent together stands together
        holders: list[int] = []
        for node in nodes:
            below = 1 << node.height
            holders.append((~node.left if node.left < 0 else holders[node.left]) // below * below + owner % below)
        handed = tuple((number, origin, origin ^ count >> number + 1) for number in range(rounds)
                       for origin in range(owner % (count >> number), count, count >> number))
        found.append(Way(tuple(holders), handed))
    return found


@cache
def ways(shards: int, count: int) -> tuple[list[Crossing], list[Way]]:
    """(the nodes at which ranks meet, the ways of equal parts of the elements)."""
    bounds = rank_bounds(shards, count)
    nodes = crossing_nodes(bounds)
    even = count & (count - 1) == 0 and len(nodes) == count - 1 == 2 ** nodes[-1].height - 1
    return nodes, (halved if even else balanced)(nodes, count)


@dataclass(frozen=True)
class Overlap:
    """Elements start … end - 1 of two sums, which the ranks `left` and `right` hold; `keeper`, one of them, gets their
    sum."""
    start: int
    end: int
    left: int
    right: int
    keeper: int


@dataclass(frozen=True)
class Meeting:
    """Where a rank adds the sums at the two nodes under `node`, or gives what it has of them away."""
    node: Span
    overlaps: tuple[Overlap, ...]

    @property
    def left(self) -> Span:
        """The node to the left under it."""
        return self.node[0], middle(*self.node)

    @property
    def right(self) -> Span:
        """The node to the right under it."""
        return middle(*self.node), self.node[1]


@dataclass(frozen=True)
class Handover:
    """Elements start … end - 1 of the whole sum, which one rank sends to another, under a tag of its own."""
    start: int
    end: int
    origin: int
    to: int
    tag: int


@dataclass(frozen=True)
class Route:
    """What one rank does: the meetings that it takes part in, those of one height together, from below; what it is
    handed; and what it hands on, as soon as it is there."""
    rounds: tuple[tuple[Meeting, ...], ...]
    incoming: tuple[Handover, ...]
    outgoing: tuple[Handover, ...]


@cache
def route(shards: int, count: int, length: int, rank: int) -> Route:
    """That of a rank for sums of so many elements."""
    if count == 1:
        return Route((), (), ())
    nodes, parts = ways(shards, count)
    ends = [number * length // len(parts) for number in range(len(parts) + 1)]
    low, high = rank_bounds(shards, count)[rank:][:2]
    own = sorted((node.height, number) for number, node in enumerate(nodes)
                 if node.node[0] < high and low < node.node[1])
    rounds = tuple(tuple(Meeting(nodes[number].node, tuple(_overlaps(nodes, number, parts, ends, rank)))
                         for _, number in group) for _, group in groupby(own, lambda one: one[0]))
    handed = _handovers(parts, ends, rank)
    return Route(rounds, tuple(one for one in handed if one.to == rank),
                 tuple(one for one in handed if one.origin == rank))


def _overlaps(nodes: Sequence[Crossing], number: int, parts: Sequence[Way], ends: Sequence[int],
              rank: int) -> Iterator[Overlap]:
    """What `rank` has to do with at a node: runs of parts for which ranks do the same there."""
    node, place = nodes[number], 0

    def who(way: Way) -> tuple[int, int, int]:
        left, right = (way.holders[child] if child >= 0 else ~child for child in (node.left, node.right))
        return left, right, way.holders[number]
    for key, run in groupby(parts, who):
        start, place = place, place + len(list(run))
        if rank in key[:2] and ends[start] < ends[place]:
            yield Overlap(ends[start], ends[place], *key)


def _handovers(parts: Sequence[Way], ends: Sequence[int], rank: int) -> list[Handover]:
    """Those of `rank`: of messages of the same round, so that none waits for itself, those of neighbouring parts are
    one."""
    begun: dict[tuple[int, int, int], list[list[int]]] = {}
    for place, way in enumerate(parts):
        for message in way.handed:
            if rank in message[1:]:
                runs = begun.setdefault(message, [])
                if runs and runs[-1][1] == place:
                    runs[-1][1] = place + 1
                else:
                    runs.append([place, place + 1])
    found: list[Handover] = []
    tags: dict[tuple[int, int], int] = {}               # so many messages of the two so far
    for (_, origin, to), runs in sorted(begun.items()):
        for first, last in runs:
            tag = tags[origin, to] = tags.get((origin, to), -1) + 1
            if ends[first] < ends[last]:
                found.append(Handover(ends[first], ends[last], origin, to, tag))
    return found
