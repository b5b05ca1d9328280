from l7proxy.core._scan cimport ResponseHead as AnswerHead

cdef class UpstreamLink:
    cdef public object pool
    cdef public object transport
    cdef public object asker
    cdef public object owner
    cdef public object vouched
    cdef public object _chunked
    cdef public object _held
    cdef public object _poll
    cdef public double idle_since_at
    cdef public double heard_at
    cdef public long long _left
    cdef public long long uses
    cdef public int fd
    cdef public int phase
    cdef public int _interim
    cdef public bint answered
    cdef public bint reusable
    cdef public bint paused
    cdef public bint full
    cdef public bint _bodiless
    cdef public bint _backed_up

    cpdef bint is_quiet(self) except *
    cpdef begin(self, object asker, bint bodiless)
    cpdef bint write(self, bytes data) except *
    cpdef _begin_body(self, object asker, AnswerHead head, object data)
