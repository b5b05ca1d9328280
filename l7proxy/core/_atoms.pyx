# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""`atoms.py` once more, for a C compiler: there what must be atomic is.

One rule: it does the same, within memory that it was given; a place beyond is an IndexError.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    typedef long long word;
    static word a_get(word *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static void a_put(word *at, word value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }
    static word a_add(word *at, word change) { return __atomic_add_fetch(at, change, __ATOMIC_SEQ_CST); }
    static int a_swap(word *at, word before, word after) {
        return __atomic_compare_exchange_n(at, &before, after, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    static double as_float(word value) { double made; memcpy(&made, &value, 8); return made; }
    static word as_word(double value) { word made; memcpy(&made, &value, 8); return made; }
    """
    ctypedef long long word
    word a_get(word *at) noexcept nogil
    void a_put(word *at, word value) noexcept nogil
    word a_add(word *at, word change) noexcept nogil
    bint a_swap(word *at, word before, word after) noexcept nogil
    double as_float(word value) noexcept nogil
    word as_word(double value) noexcept nogil

cdef enum:
    COUNT_BITS = 16
    COUNT = 0xffff
    TRIES = 100
    TAKES = 3


cdef class Words:
    """The words of `memory`, by their place from 0. Values are signed."""

    cdef Py_buffer view
    cdef word *words
    cdef Py_ssize_t length
    cdef bint held

    def __cinit__(self, memory):
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        self.held = True
        self.words = <word *>self.view.buf
        self.length = self.view.len // 8
        if <size_t>self.view.buf % 8:
            raise ValueError("memory that is not aligned")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef int _within(self, Py_ssize_t at) except -1:
        if at < 0 or at >= self.length:
            raise IndexError(at)
        return 0

    cdef int _all_within(self, Py_ssize_t at, Py_ssize_t step, Py_ssize_t count, Py_ssize_t each) except -1:
        self._within(at)
        if count > 0:
            if step < 0 or step > self.length or count > self.length:
                raise IndexError(at)
            self._within(at + step * (count - 1) + each - 1)
        return 0

    cpdef word get(self, Py_ssize_t at) except? -1:
        self._within(at)
        return a_get(self.words + at)

    def put(self, Py_ssize_t at, word value):
        self._within(at)
        a_put(self.words + at, value)

    def get_float(self, Py_ssize_t at):
        self._within(at)
        return as_float(a_get(self.words + at))

    def put_float(self, Py_ssize_t at, double value):
        self._within(at)
        a_put(self.words + at, as_word(value))

    cpdef word add(self, Py_ssize_t at, word change) except? -1:
        self._within(at)
        return a_add(self.words + at, change)

    def swap(self, Py_ssize_t at, word before, word after):
        self._within(at)
        return a_swap(self.words + at, before, after)

    cdef word _total(self, Py_ssize_t at, Py_ssize_t step, Py_ssize_t count) noexcept:
        cdef word found = 0
        cdef Py_ssize_t each
        for each in range(count):
            found += a_get(self.words + at + each * step)
        return found

    cpdef word total(self, Py_ssize_t at, Py_ssize_t step, Py_ssize_t count) except? -1:
        self._all_within(at, step, count, 1)
        return self._total(at, step, count)

    cpdef bint take(self, Py_ssize_t own, Py_ssize_t at, Py_ssize_t step, Py_ssize_t count_at, word most) except -1:
        cdef Py_ssize_t count
        self._within(own)
        self._within(count_at)
        count = a_get(self.words + count_at)
        self._all_within(at, step, count, 1)
        for _ in range(TAKES):
            a_add(self.words + own, 1)
            if self._total(at, step, count) <= most:
                return True
            a_add(self.words + own, -1)
            if self._total(at, step, count) >= most:
                return False
        return False

    cpdef word tally(
        self, Py_ssize_t at, Py_ssize_t step, Py_ssize_t count, Py_ssize_t ways, word tag
    ) except? -1:
        cdef word found = 0
        cdef word each
        cdef Py_ssize_t slot, way
        self._all_within(at, step, count, ways)
        for slot in range(count):
            for way in range(ways):
                each = a_get(self.words + at + slot * step + way)
                if each >> COUNT_BITS == tag:
                    found += each & COUNT
        return found

    cpdef word fill(
        self, Py_ssize_t at, Py_ssize_t ways, word tag, word now, word interval, word burst
    ) except? -1:
        cdef word *pair
        cdef word *chosen
        cdef word known, former, most, full_at, after, there
        cdef Py_ssize_t way
        self._all_within(at, 2, ways, 2)
        most = now + interval * burst
        for _ in range(TRIES):
            chosen = self.words + at
            known = a_get(chosen + 1)
            for way in range(ways):
                pair = self.words + at + 2 * way
                there = a_get(pair + 1)
                if a_get(pair) == tag:
                    chosen = pair
                    break
                if there < known:
                    chosen = pair
                    known = there
            former = a_get(chosen)
            if former != tag:
                if not a_swap(chosen + 1, known, 0) or not a_swap(chosen, former, tag):
                    continue
            known = a_get(chosen + 1)
            full_at = known if known > now else now
            if full_at > most:
                full_at = most
            after = full_at + interval
            if after > most:
                if full_at >= known or a_swap(chosen + 1, known, full_at):
                    return after - most
                continue
            if a_swap(chosen + 1, known, after):
                return 0
        return 0
