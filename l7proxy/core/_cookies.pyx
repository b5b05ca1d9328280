# cython: language_level=3, boundscheck=False, wraparound=False
"""`cookies.py` once more, for a C compiler."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

cdef extern from *:
    """
    #include <string.h>
    #include <strings.h>

    /* Where `key` begins behind `name` (a header's, with its colon) and, of cookies, a semicolon; -1: nowhere. */
    static Py_ssize_t cookie_at(const char *all, Py_ssize_t length, const char *key, Py_ssize_t of, Py_ssize_t from,
                                const char *name, Py_ssize_t named, int is_list) {
        const char *end = all + length, *at = all + from, *line, *before;
        if (from < 0 || from > length) return -1;
        while ((at = memmem(at, end - at, key, of)) != NULL) {
            before = at;
            while (before > all && (before[-1] == ' ' || before[-1] == '\\t')) before--;
            if (before > all && (before[-1] == ':' || (is_list && before[-1] == ';'))) {
                line = before;
                while (line > all && !(line > all + 1 && line[-1] == '\\n' && line[-2] == '\\r')) line--;
                if (before - line >= named && strncasecmp(line, name, named) == 0
                    && (before - line == named || (is_list && before[-1] == ';')))
                    return at - all;
            }
            at++;
        }
        return -1;
    }

    static Py_ssize_t line_end(const char *all, Py_ssize_t length, Py_ssize_t from) {
        const char *end = all + length - 1, *at = all + from;
        while (at < end && (at = memchr(at, '\\r', end - at)) != NULL) {
            if (at[1] == '\\n') return at - all;
            at++;
        }
        return -1;
    }
    """
    Py_ssize_t cookie_at(const char *all, Py_ssize_t length, const char *key, Py_ssize_t of, Py_ssize_t start,
                         const char *name, Py_ssize_t named, int is_list) noexcept nogil
    Py_ssize_t line_end(const char *all, Py_ssize_t length, Py_ssize_t start) noexcept nogil

cdef extern from "string.h":
    void *memchr(const void *at, int what, size_t length) noexcept nogil
    void *memcpy(void *to, const void *source, size_t length) noexcept nogil


cpdef Py_ssize_t find_cookie(bytes fields, bytes key, Py_ssize_t start=0) except -2:
    return cookie_at(PyBytes_AS_STRING(fields), PyBytes_GET_SIZE(fields), PyBytes_AS_STRING(key),
                     PyBytes_GET_SIZE(key), start, b"cookie:", 7, 1)


cpdef Py_ssize_t find_set_cookie(bytes fields, bytes key, Py_ssize_t start=0) except -2:
    cdef Py_ssize_t at = cookie_at(PyBytes_AS_STRING(fields), PyBytes_GET_SIZE(fields), PyBytes_AS_STRING(key),
                                   PyBytes_GET_SIZE(key), start, b"set-cookie:", 11, 0)
    return at + PyBytes_GET_SIZE(key) if at >= 0 else -1


cdef Py_ssize_t _end_of(bytes fields, Py_ssize_t start) except -1:
    cdef Py_ssize_t end = line_end(PyBytes_AS_STRING(fields), PyBytes_GET_SIZE(fields), start)
    if start < 0 or start > PyBytes_GET_SIZE(fields) or end < 0:
        raise ValueError("no whole line")
    return end


cpdef bytes cookie_value(bytes fields, bytes key, Py_ssize_t at):
    cdef Py_ssize_t start = at + PyBytes_GET_SIZE(key)
    cdef Py_ssize_t end = _end_of(fields, start)
    cdef char *all = PyBytes_AS_STRING(fields)
    cdef char *stop = <char *>memchr(all + start, 59, end - start)
    if stop != NULL:
        end = stop - all
    while end > start and (all[end - 1] == 32 or all[end - 1] == 9):
        end -= 1
    return PyBytes_FromStringAndSize(all + start, end - start)


cdef bytes _cut(bytes fields, Py_ssize_t start, Py_ssize_t end):
    """`fields` without what stands from `start` up to `end`."""
    cdef Py_ssize_t length = PyBytes_GET_SIZE(fields)
    cdef bytes rest = PyBytes_FromStringAndSize(NULL, length - (end - start))
    memcpy(PyBytes_AS_STRING(rest), PyBytes_AS_STRING(fields), start)
    memcpy(PyBytes_AS_STRING(rest) + start, PyBytes_AS_STRING(fields) + end, length - end)
    return rest


cpdef bytes without_cookie(bytes fields, bytes key, Py_ssize_t start=0):
    cdef Py_ssize_t at = find_cookie(fields, key, start), end, rest, line
    cdef char *all
    cdef char *stop
    while at >= 0:
        end = _end_of(fields, at)
        all = PyBytes_AS_STRING(fields)
        stop = <char *>memchr(all + at, 59, end - at)
        rest = end
        if stop != NULL:
            rest = stop - all + 1
            while rest < end and (all[rest] == 32 or all[rest] == 9):
                rest += 1
        if rest < end:
            fields = _cut(fields, at, rest)
        else:
            line = at
            while line > 0 and not (line > 1 and all[line - 1] == 10 and all[line - 2] == 13):
                line -= 1
            while at > line and (all[at - 1] == 32 or all[at - 1] == 9 or all[at - 1] == 59):
                at -= 1
            if at - line <= 7:
                fields = _cut(fields, line, end + 2)
            else:
                fields = _cut(fields, at, end)
            at = line
        at = find_cookie(fields, key, at)
    return fields
