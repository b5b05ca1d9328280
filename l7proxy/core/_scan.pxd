cdef class RequestHead:
    cdef public bytes method
    cdef public bytes target
    cdef public bytes start
    cdef public bytes authority
    cdef public str host
    cdef public str path
    cdef public bytes fields
    cdef public tuple claims
    cdef public object length
    cdef public bytes upgrade
    cdef public bytes via
    cdef public object max_forwards
    cdef public bytes referer
    cdef public bytes agent
    cdef public bint odd
    cdef public bint http10
    cdef public bint chunked
    cdef public bint keep_alive
    cdef public bint expects_continue
    cdef public bint bound


cdef class ResponseHead:
    cdef public int status
    cdef public bytes phrase
    cdef public bytes fields
    cdef public object length
    cdef public bytes upgrade
    cdef public bint chunked
    cdef public bint keep_alive
    cdef public bint dated
    cdef public bint bound


cpdef RequestHead scan_request(bytes data, Py_ssize_t most_headers=*)
cpdef ResponseHead scan_response(bytes data)
