cimport cython

cdef class Counters:
    cdef public long long requests
    cdef public long long ended
    cdef public long long bytes_sent
    cdef public list by_class


cdef class UpstreamMeter:
    cdef public list total
    cdef public list first
    cdef public double total_s
    cdef public double first_s
    cdef public long long received_bytes
    cdef public long long sent_bytes
    cdef public long long retries
    cdef public dict causes


cdef class RouteMeter:
    cdef public str name
    cdef public str upstream_name
    cdef public UpstreamMeter upstream
    cdef public list by_class
    cdef public dict limited


cdef class Meters:
    cdef public dict _upstreams
    cdef public RouteMeter _nowhere
    cdef public dict _routes

    @cython.locals(meter=RouteMeter, found=RouteMeter, upstream=UpstreamMeter, total_s=double, first_s=double)
    cpdef account(
        self,
        object route,
        int status,
        object cause,
        long long retries,
        long long received_bytes,
        long long sent_bytes,
        double started_at,
        double first_byte_at,
        double ended_at,
    )
