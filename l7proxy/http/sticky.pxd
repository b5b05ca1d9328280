cimport cython
from l7proxy.core._cookies cimport cookie_value, find_cookie, find_set_cookie, without_cookie
from l7proxy.core._scan cimport RequestHead as Asked
from l7proxy.core._scan cimport ResponseHead as AnswerHead

cdef class Held:
    cdef public object sessions
    cdef public object ticket
    cdef public Py_ssize_t at
    cdef public double now
    cdef public bint arrived


cdef class Sessions:
    cdef public bint _is_insert
    cdef public bint _is_prefix
    cdef public bint _is_passive
    cdef public bint _indirect
    cdef public bint _is_timed
    cdef public object _sticky
    cdef public bytes _key
    cdef public object _backends
    cdef public double _drain_s
    cdef public object tickets
    cdef public list counts

    @cython.locals(held=Held, fields=bytes, at=Py_ssize_t, now=double)
    cpdef ticket_of(self, object exchange)
    @cython.locals(at=Py_ssize_t)
    cpdef _read(self, bytes fields, Py_ssize_t at, double now)
    cpdef backend_of(self, object exchange, object untried)
    cpdef choose(self, object exchange, object untried)
    @cython.locals(held=Held, head=Asked)
    cpdef arrive(self, object exchange, object backend)
    @cython.locals(at=Py_ssize_t)
    cpdef answered(self, object exchange, AnswerHead head)


cdef class SessionAnswers:
    @cython.locals(sessions=Sessions)
    cpdef after(self, object exchange, AnswerHead head)
