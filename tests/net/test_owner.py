"""A thread that owns: where jobs are done, what comes back, when it ends."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from vo_stream.errors import NetError
from vo_stream.net.owner import Owner


def test_jobs_of_all_threads_are_done_in_one() -> None:
    owner = Owner("owner")
    with ThreadPoolExecutor(4) as pool:
        idents = set(pool.map(lambda _: owner.do(threading.get_ident), range(100)))
    assert len(idents) == 1
    assert threading.get_ident() not in idents
    owner.close()


def test_each_caller_gets_its_own_answer() -> None:
    owner = Owner("owner")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: owner.do(lambda: n * n), range(200)))
    assert answers == [n * n for n in range(200)]
    owner.close()


def test_what_a_job_raises_is_raised_and_the_next_one_is_done() -> None:
    owner = Owner("owner")

    def fail() -> None:
        raise NetError("out of memory")

    with pytest.raises(NetError, match="out of memory"):
        owner.do(fail)
    assert owner.do(lambda: 3) == 3
    owner.close()


def test_closing_ends_the_thread_and_nothing_is_done_any_more() -> None:
    threads = threading.active_count()
    owner = Owner("owner")
    owner.close()
    owner.close()
    assert threading.active_count() == threads
    with pytest.raises(RuntimeError, match="closed"):
        owner.do(lambda: None)


def test_a_forgotten_owner_ends_its_thread() -> None:
    owner = Owner("owner")
    thread = owner.do(threading.current_thread)
    del owner
    gc.collect()
    thread.join(10.0)
    assert not thread.is_alive()


def test_nothing_of_a_job_is_kept() -> None:
    class Thing:
        pass

    owner, thing = Owner("owner"), Thing()
    known = weakref.ref(thing)
    assert owner.do(partial(id, thing)) == id(thing)
    del thing
    owner.do(lambda: None)  # by now the one before is over
    assert known() is None
    owner.close()
