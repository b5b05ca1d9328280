from l7proxy.http.link cimport UpstreamLink as Link

cdef class IdleBudget:
    cdef public Py_ssize_t most
    cdef public Py_ssize_t kept


cdef class LinkPool:
    cdef public object endpoint
    cdef public object way
    cdef public object session
    cdef public bint is_personal
    cdef public IdleBudget _budget
    cdef public list _idle
    cdef public bint _closed
    cdef public long long made
    cdef public long long reused
    cdef public long long connecting

    cpdef Link take(self)
    cpdef give_back(self, Link link, bint whole, double now)
