# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""`lines.py` once more, for a C compiler.

One rule: each answer is as `lines.py` has it; the same tests go over both.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport memchr, memcpy

cdef struct Name:
    const char *text
    Py_ssize_t length


cdef inline char _low(char octet) noexcept:
    return octet + 32 if c"A" <= octet <= c"Z" else octet


cdef inline bint _same(const char *at, const char *text, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i
    for i in range(length):
        if _low(at[i]) != text[i]:
            return False
    return True


cdef class Named:
    cdef Name *_names
    cdef int _count
    cdef int _begins
    cdef int _all
    cdef tuple _kept

    def __cinit__(self, names, begins=(), but=()):
        cdef int place = 0
        names = sorted(set(names))
        begins = list(begins)
        but = list(but)
        self._kept = (*names, *begins, *but)
        self._count = len(names)
        self._begins = self._count + len(begins)
        self._all = self._begins + len(but)
        self._names = <Name *>PyMem_Malloc((self._all + 1) * sizeof(Name))
        if self._names == NULL:
            raise MemoryError
        for each in self._kept:
            self._names[place].text = PyBytes_AS_STRING(each)
            self._names[place].length = PyBytes_GET_SIZE(each)
            place += 1

    def __dealloc__(self):
        PyMem_Free(self._names)

    cdef inline bint _has(self, const char *at, Py_ssize_t length) noexcept:
        cdef int place, other
        cdef Name *name
        for place in range(self._count):
            name = &self._names[place]
            if name.length == length and _low(at[0]) == name.text[0] and _same(at, name.text, length):
                return True
        for place in range(self._count, self._begins):
            name = &self._names[place]
            if name.length <= length and _same(at, name.text, name.length):
                for other in range(self._begins, self._all):
                    if self._names[other].length == length and _same(at, self._names[other].text, length):
                        return False
                return True
        return False

    cdef inline const char *_end_of(self, const char *at, const char *end) noexcept:
        """Behind the line that begins at `at`."""
        cdef const char *found = <const char *>memchr(at, c"\n", end - at)
        return found + 1 if found != NULL else end

    cdef inline bint _is_cut(self, const char *at, const char *after) noexcept:
        cdef const char *colon = <const char *>memchr(at, c":", after - at)
        return colon != NULL and colon > at and self._has(at, colon - at)

    def in_lines(self, bytes fields):
        cdef const char *at = PyBytes_AS_STRING(fields)
        cdef const char *end = at + PyBytes_GET_SIZE(fields)
        cdef const char *after
        while at < end:
            after = self._end_of(at, end)
            if self._is_cut(at, after):
                return True
            at = after
        return False

    def without(self, bytes fields):
        cdef bytes kept = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(fields))
        cdef char *to = PyBytes_AS_STRING(kept)
        cdef const char *at = PyBytes_AS_STRING(fields)
        cdef const char *end = at + PyBytes_GET_SIZE(fields)
        cdef const char *after
        cdef Py_ssize_t length = 0
        while at < end:
            after = self._end_of(at, end)
            if not self._is_cut(at, after):
                memcpy(to + length, at, after - at)
                length += after - at
            at = after
        return kept[:length]
