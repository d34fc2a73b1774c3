"""Large results are given again once nobody has them any more, and never before."""
import gc as garbage
import threading
import weakref

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.entry_layout import SPARE_BYTES

SIZE = SPARE_BYTES // 4


@gc.graph
def double(x: gc.f32[SIZE]):
    return x * 2


@gc.graph
def two(x: gc.f32[SIZE]):
    return x + 1, x - 1


def place(array) -> int:
    return array.__array_interface__["data"][0]


@pytest.fixture
def run():
    made = gc.compile(double, threads=1)
    for _ in range(3):                  # past the calls that are timed in Python
        made(np.zeros(SIZE, np.float32))
    return made


@pytest.fixture
def x():
    return np.arange(SIZE, dtype=np.float32)


def test_a_dropped_result_is_given_again(run, x):
    first = place(run(x))
    assert all(place(run(x)) == first for _ in range(3))


def test_two_take_turns_where_a_result_is_held_until_the_next_one(run, x):
    y, places = run(x), set()
    for i in range(8):
        y = run(x + i)
        np.testing.assert_array_equal(y, (x + i) * 2)
        places.add(place(y))
    assert len(places) == 2


def test_results_in_use_are_left_alone(run, x):
    results = [run(x + i) for i in range(4)]
    assert len({place(y) for y in results}) == 4
    for i, y in enumerate(results):
        np.testing.assert_array_equal(y, (x + i) * 2)


def test_large_results_start_at_a_cache_line_and_are_ordinary_arrays(run, x):
    results = [run(x + i) for i in range(3)]
    assert all(place(y) % 64 == 0 and y.flags.owndata and y.flags.writeable for y in results)
    results[0].resize((SIZE + 1000,), refcheck=False)
    assert results[0][-1] == 0
    np.testing.assert_array_equal(results[0][:SIZE], x * 2)


HOLDERS = {"a view": lambda y: y[5:], "its memory": memoryview, "a container": lambda y: {"y": y}}


@pytest.mark.parametrize("holder", HOLDERS)
def test_whoever_looks_at_the_memory_keeps_it(run, x, holder):
    held = HOLDERS[holder](run(x))
    second = run(x + 1)
    np.testing.assert_array_equal(second, (x + 1) * 2)
    base = held["y"] if isinstance(held, dict) else np.asarray(held)
    assert base[-1] == 2 * x[-1] and not np.shares_memory(base, second)


CHANGES = {"shape": lambda y: setattr(y, "shape", (2, SIZE // 2)), "locked": lambda y: y.setflags(write=False)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_an_array_that_was_changed_is_not_given_again(run, x, change):
    CHANGES[change](run(x))
    y = run(x)
    assert y.shape == (SIZE,) and y.flags.writeable and y.flags.owndata
    np.testing.assert_array_equal(y, x * 2)


def test_a_weak_reference_names_one_result(run, x):
    y = run(x)
    known = weakref.ref(y)
    del y
    later = [run(x) for _ in range(3)]
    assert known() is None and len(later) == 3          # given again, it would be one of these


def test_the_function_takes_its_spares_with_it(x):
    made = gc.compile(double, threads=1)
    for _ in range(4):
        y = made(x)
    known = weakref.ref(y)
    del y
    assert known() is not None
    del made
    garbage.collect()
    assert known() is None


def test_each_result_has_its_own_spare(x):
    made = gc.compile(two, threads=1)
    for i in range(6):
        up, down = made(x + i)
        assert not np.shares_memory(up, down)
        np.testing.assert_array_equal(up - 2, down)
        np.testing.assert_array_equal(down, x + i - 1)


def test_python_threads_never_share_a_result(run, x):
    wrong = []

    def work(k):
        for i in range(40):
            y = run(x + k)
            if not (y == (x + k) * 2).all():
                wrong.append((k, i))
    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
