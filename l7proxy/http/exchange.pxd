cimport cython
from l7proxy.core._scan cimport RequestHead as Asked
from l7proxy.core._scan cimport ResponseHead as AnswerHead
from l7proxy.core.metering cimport Counters
from l7proxy.http.ending cimport Ending
from l7proxy.http.link cimport UpstreamLink as Link
from l7proxy.http.pool cimport LinkPool as Pool

cdef class Exchange(Ending):
    @cython.locals(counters=Counters)
    cpdef start(self, bytes piece, bint last)
    cpdef go_on(self)
    cpdef _dispatch(self, object state)
    @cython.locals(pool=Pool, link=Link)
    cpdef _go_to(self, object backend)
    @cython.locals(counters=Counters, head=Asked)
    cpdef _send(self, Link link)
    cpdef answer(self, AnswerHead head, object piece, bint last)
    cpdef more(self, object piece, bint last)
