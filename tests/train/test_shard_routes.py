"""Who sends what, without sending it: every rank gets the sum that the tree gives, and none sends more than must be."""
from __future__ import annotations

from itertools import product

import pytest

from graphc.shard_routes import Handover, Route, route
from graphc.shard_tree import crossings, middle, rank_bounds, subtrees

LENGTH = 9_600
CASES = [(8, 2), (8, 3), (8, 5), (8, 7), (8, 8), (12, 3), (16, 3), (24, 5), (24, 12), (32, 3), (32, 10), (64, 3), (64, 5),
         (100, 6)]
Held = dict[tuple[int, int], list[object]]          # of a rank: what it has of the sum at a node, element by element


def tree(low: int, high: int) -> object:
    """The sum over shards, as nested pairs."""
    return low if high - low == 1 else (tree(low, middle(low, high)), tree(middle(low, high), high))


def followed(shards: int, count: int, length: int) -> tuple[list[Held], list[int]]:
    """(what ranks have in the end, the elements that each has sent)."""
    bounds, routes = rank_bounds(shards, count), [route(shards, count, length, rank) for rank in range(count)]
    held: list[Held] = [{node: [tree(*node)] * length for node in subtrees((bounds[r], bounds[r + 1]), (0, shards))}
                        for r in range(count)]
    sent = [0] * count
    levels = sorted({(meeting.node[1] - meeting.node[0], meeting.node) for one in routes for group in one.rounds
                     for meeting in group})
    for _, node in levels:                          # smaller nodes stand below larger ones
        before = [dict(of_rank) for of_rank in held]
        for rank, meeting in ((rank, meeting) for rank, one in enumerate(routes) for group in one.rounds
                              for meeting in group if meeting.node == node):
            whole: list[object] = [None] * length
            for overlap in meeting.overlaps:
                assert overlap.keeper in (overlap.left, overlap.right) and rank in (overlap.left, overlap.right)
                if overlap.keeper == rank:
                    for i in range(overlap.start, overlap.end):
                        whole[i] = (before[overlap.left][meeting.left][i], before[overlap.right][meeting.right][i])
                else:
                    sent[rank] += overlap.end - overlap.start
            held[rank][node] = whole
    hand_on(routes, held, (0, shards), sent)
    return held, sent


def hand_on(routes: list[Route], held: list[Held], node: tuple[int, int], sent: list[int]) -> None:
    """All handovers whose elements are there, again and again; none may be left over."""
    left: list[Handover] = [one for of_rank in routes for one in of_rank.outgoing]
    while left:
        ready = [one for one in left if None not in held[one.origin][node][one.start:one.end]]
        assert ready, "they wait for each other"
        for one in ready:
            assert held[one.to][node][one.start:one.end] == [None] * (one.end - one.start)
            held[one.to][node][one.start:one.end] = held[one.origin][node][one.start:one.end]
            sent[one.origin] += one.end - one.start
        left = [one for one in left if one not in ready]


@pytest.mark.parametrize("shards, count", CASES)
def test_all_ranks_get_the_sum_of_the_tree(shards, count):
    for length in (1, 7, 500):
        held, _ = followed(shards, count, length)
        assert all(of_rank[0, shards] == [tree(0, shards)] * length for of_rank in held)


@pytest.mark.parametrize("shards, count", CASES)
def test_no_rank_sends_more_than_must_be(shards, count):
    """The least is that of all ranks together, divided among them."""
    _, sent = followed(shards, count, LENGTH)
    least = (crossings(rank_bounds(shards, count)) + count - 1) / count
    most = max(sent) / LENGTH
    assert most <= 1.08 * least and (most <= 2 or least > 2)


@pytest.mark.parametrize("shards", range(2, 13))
def test_what_a_rank_sends_and_is_handed_is_what_others_say(shards):
    for count in range(2, shards + 1):
        routes = [route(shards, count, LENGTH, rank) for rank in range(count)]
        sent = sorted((one.origin, one.to, one.tag, one.start, one.end) for of_rank in routes for one in of_rank.outgoing)
        got = sorted((one.origin, one.to, one.tag, one.start, one.end) for of_rank in routes for one in of_rank.incoming)
        assert sent == got and len({one[:3] for one in sent}) == len(sent)


@pytest.mark.parametrize("sizes", [(3, 3, 2), (1, 4, 2), (2, 1, 3, 1), (4, 4, 4), (5, 2)])
def test_crossings_are_the_fewest_of_all_places_of_the_sums(sizes):
    bounds = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    owner = [rank for rank, size in enumerate(sizes) for _ in range(size)]
    nodes: list[tuple[int, int]] = []

    def visit(low: int, high: int) -> None:
        if high - low > 1:
            nodes.append((low, high))
            visit(low, middle(low, high))
            visit(middle(low, high), high)
    visit(0, bounds[-1])
    mixed = [node for node in nodes if owner[node[0]] != owner[node[1] - 1]]

    def crossed(places: tuple[int, ...]) -> int:
        at = dict(zip(mixed, places))
        below = ((node, child) for node in mixed for child in ((node[0], middle(*node)), (middle(*node), node[1])))
        return sum(at[node] != at.get(child, owner[child[0]]) for node, child in below)
    assert crossings(bounds) == min(map(crossed, product(range(len(sizes)), repeat=len(mixed))))


@pytest.mark.parametrize("shards, count, least", [(16, 3, 3), (22, 3, 3), (32, 6, 7), (8, 3, 3)])
def test_blocks_are_chosen_for_few_crossings(shards, count, least):
    bounds = rank_bounds(shards, count)
    assert crossings(bounds) == least and max(b - a for a, b in zip(bounds, bounds[1:])) == -(-shards // count)
