cdef class TcpFront:
    cdef public object proxy
    cdef public set clients
    cdef public double now
    cdef public object listener
    cdef public object name
    cdef public object tcp
    cdef public object trusted
    cdef public object _bound
    cdef public object _loop
    cdef public bint _serving
    cdef public object _poll
    cdef public dict _ends
    cdef public list _next
    cdef public list _closing
    cdef public bint _dispatching
    cdef public dict _addresses

    cpdef int dial(self, object backend, object session) except? -100000
    cpdef again(self, object session)
    cpdef close_end(self, int fd, bint reset)
    cpdef forget(self, object session)
