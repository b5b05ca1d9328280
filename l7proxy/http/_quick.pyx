# cython: language_level=3, boundscheck=False, wraparound=False
"""`quick.py` once more, for a C compiler.

`write` keeps the interpreter's lock: the descriptor does not block, and to part with the lock costs more than to write.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EINTR, errno

cdef extern from "unistd.h":
    ssize_t c_write "write"(int fd, const void *data, size_t length) nogil

cdef extern from *:
    """
    #include <string.h>
    static Py_ssize_t empty_line(const char *at, Py_ssize_t length) {
        const char *here = at, *end = at + length - 3;
        while (here < end && (here = memchr(here, '\\r', end - here)) != NULL) {
            if (memcmp(here, "\\r\\n\\r\\n", 4) == 0) return here - at;
            here++;
        }
        return -1;
    }
    """
    Py_ssize_t empty_line(const char *at, Py_ssize_t length) noexcept nogil


cdef Py_ssize_t _write(int fd, const void *data, Py_ssize_t length) except -1:
    cdef Py_ssize_t written = c_write(fd, data, length)
    while written < 0 and errno == EINTR:
        written = c_write(fd, data, length)
    if written < 0:
        PyErr_SetFromErrno(OSError)
    return written


cpdef Py_ssize_t write(int fd, object data) except -1:
    cdef Py_buffer view
    if PyBytes_CheckExact(data):
        return _write(fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return _write(fd, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cpdef Py_ssize_t head_end(bytes data) except -2:
    return empty_line(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cpdef Py_ssize_t head_end_within(bytearray buffer, Py_ssize_t length) except -2:
    return empty_line(PyByteArray_AS_STRING(buffer), min(length, PyByteArray_GET_SIZE(buffer)))


cpdef bytes copied(bytearray buffer, Py_ssize_t start, Py_ssize_t end):
    end = min(end, PyByteArray_GET_SIZE(buffer))
    if start < 0 or start > end:
        raise ValueError("no part of the buffer")
    return PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer) + start, end - start)
