cimport cython
from l7proxy.core._scan cimport RequestHead as Asked
from l7proxy.core.metering cimport Counters, Meters
from l7proxy.http.link cimport UpstreamLink as Link
from l7proxy.http.pool cimport LinkPool as Pool
from l7proxy.http.told cimport Told

cdef class Ending(Told):
    @cython.locals(counters=Counters, pool=Pool, link=Link)
    cpdef _end(self, double now)
    @cython.locals(counters=Counters, meters=Meters, head=Asked)
    cpdef _account(self, double now)
