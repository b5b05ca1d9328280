from l7proxy.core._scan cimport RequestHead as Asked
from l7proxy.http.link cimport UpstreamLink as Link

cdef class Told:
    cdef public object client
    cdef public Asked head
    cdef public object asker
    cdef public object proxy
    cdef public object snapshot
    cdef public object route
    cdef public object upstream
    cdef public object backend
    cdef public Link link
    cdef public object place
    cdef public object line
    cdef public object cause
    cdef public object steps
    cdef public object guard
    cdef public bint trial
    cdef public object encoder
    cdef public object reason
    cdef public object tries
    cdef public object original
    cdef public object _seen
    cdef public object user
    cdef public object _captures
    cdef public object _request_id
    cdef public object session
    cdef public int _step
    cdef public object tail
    cdef public object _untried
    cdef public object _kept
    cdef public double started_at
    cdef public double chosen_at
    cdef public double linked_at
    cdef public double first_byte_at
    cdef public double sent_at
    cdef public double _unsent_since_at
    cdef public long long received_bytes
    cdef public long long sent_bytes
    cdef public long long _kept_bytes
    cdef public long long _unsent
    cdef public int status
    cdef public int retries
    cdef public int _ends
    cdef public bint body_done
    cdef public bint over
    cdef public bint from_proxy
    cdef public bint unlogged
    cdef public bint tunnel
    cdef public bint _welcome
    cdef public bint _forgotten
