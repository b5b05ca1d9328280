from l7proxy.core._scan cimport RequestHead as Asked
from l7proxy.core._scan cimport ResponseHead as AnswerHead
from l7proxy.http.exchange cimport Exchange as Exchanged

cdef class ClientConnection:
    cdef public object front
    cdef public object proxy
    cdef public object transport
    cdef public object peer
    cdef public object scheme
    cdef public object told
    cdef public object certificate
    cdef public Exchanged exchange
    cdef public object bound
    cdef public object _held
    cdef public object _chunked
    cdef public object _tail
    cdef public object _tail_of
    cdef public double read_at
    cdef public double _paused_at
    cdef public double _idle_since_at
    cdef public double _head_since_at
    cdef public double _body_since_at
    cdef public double _unsent_since_at
    cdef public long long _left
    cdef public long long _unsent
    cdef public int fd
    cdef public int state
    cdef public bint keep_alive
    cdef public bint _recode
    cdef public bint _pumping
    cdef public bint _full
    cdef public bint _backed_up
    cdef public bint _half_closed

    cpdef bint _begin(self, bytes data) except *
    cpdef bint _stays(self, Exchanged exchange) except *
    cpdef _write(self, object data)
    cpdef bytes tail(self, bytes authority)
    cpdef answer(self, AnswerHead head, object piece, bint last)
    cpdef ended(self, double now)
