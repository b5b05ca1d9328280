# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The combined form of `logline.py` once more, for a C compiler.

One rule: each line comes out as `logline.py` has it, to the byte.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.math cimport floor, fma, signbit
from libc.string cimport memcpy

cdef extern from *:
    """
    /* Whether no octet needs an escape: printable ASCII without " and backslash. */
    static int is_plain(const unsigned char *at, Py_ssize_t length) {
        unsigned char bad = 0;
        for (Py_ssize_t i = 0; i < length; i++)
            bad |= ((unsigned char)(at[i] - 0x20) > 0x5e) | (at[i] == '"') | (at[i] == '\\\\');
        return !bad;
    }
    """
    bint is_plain(const unsigned char *at, Py_ssize_t length) noexcept


cdef class Combined:
    """Makes the lines. Given are the written forms of names, how odd octets are escaped, what a second is called, and how a user is written."""

    cdef object names
    cdef object escaped
    cdef object moment
    cdef object word
    cdef char *text
    cdef Py_ssize_t length
    cdef Py_ssize_t size
    cdef long long second
    cdef bytes stamp

    def __init__(self, names, escaped, moment, word):
        self.names = names
        self.escaped = escaped
        self.moment = moment
        self.word = word
        self.second = -1
        self.stamp = b""

    def __dealloc__(self):
        PyMem_Free(self.text)

    def __call__(self, records, double wall_s):
        self.length = 0
        for record in records:
            self._add(record, wall_s)
        return PyBytes_FromStringAndSize(self.text, self.length)

    cdef int _room(self, Py_ssize_t more) except -1:
        cdef char *text
        if self.length + more > self.size:
            text = <char *>PyMem_Realloc(self.text, 2 * (self.length + more) + 4096)
            if text == NULL:
                raise MemoryError
            self.text = text
            self.size = 2 * (self.length + more) + 4096
        return 0

    cdef inline void _put(self, const char *what, Py_ssize_t length) noexcept:
        memcpy(self.text + self.length, what, length)
        self.length += length

    cdef inline void _put_bytes(self, bytes what) noexcept:
        self._put(PyBytes_AS_STRING(what), PyBytes_GET_SIZE(what))

    cdef inline void _put_number(self, long long number) noexcept:
        cdef char digits[24]
        cdef int at = 24
        cdef unsigned long long left = number
        if number < 0:
            self._put(b"-", 1)
            left = 0 - left
        while True:
            at -= 1
            digits[at] = <char>(48 + left % 10)
            left //= 10
            if left == 0:
                break
        self._put(digits + at, 24 - at)

    cdef int _put_ms(self, double seconds) except -1:
        """Milliseconds with one decimal, as `%.1f` rounds: to the nearest, of two to the even one."""
        cdef double ms = seconds * 1000
        cdef double tenths, whole, rest, error
        cdef long long rounded
        cdef bytes text
        if not (0 <= ms < 1e12) or signbit(ms):
            text = b"%.1f" % ms  # at most 311 octets, and `_add` has made room for them
            self._put_bytes(text)
            return 0
        tenths = ms * 10
        error = fma(ms, 10, -tenths)
        whole = floor(tenths)
        rest = tenths - whole
        rounded = <long long>whole
        if rest > 0.5 or (rest == 0.5 and (error > 0 or (error == 0 and rounded & 1))):
            rounded += 1
        self._put_number(rounded // 10)
        self._put(b".", 1)
        self._put_number(rounded % 10)
        return 0

    cdef int _add(self, tuple record, double wall_s) except -1:
        cdef double started_at = record[0], chosen_at = record[1], connected_at = record[2]
        cdef double first_at = record[3], ended_at = record[4]
        cdef bytes client = (<str>record[5]).encode("ascii", "replace") or b"-"
        cdef bytes method = record[6] or b"-"
        cdef bytes host = record[7] or b"-"
        cdef bytes target = record[8] or b"-"
        cdef bytes version = record[9]
        cdef bytes scheme = self.names[record[10]]
        cdef bytes route = self.names[record[14]]
        cdef bytes upstream = self.names[record[15]]
        cdef bytes backend = self.names[record[16]]
        cdef bytes cause = b"-" if record[18] is None else self.names[record[18].label]
        cdef bytes referer = b"-" if record[19] is None else record[19]
        cdef bytes agent = b"-" if record[20] is None else record[20]
        cdef bytes request_id = b"" if record[21] is None else record[21]
        cdef bytes user = self.word(record[22]) if record[22] else b"-"
        cdef long long second = <long long>(started_at + wall_s)
        if second != self.second:
            self.stamp = self.moment(second).strftime("%d/%b/%Y:%H:%M:%S +0000").encode("ascii")
            self.second = second
        if chosen_at == 0:
            chosen_at = ended_at
        if connected_at == 0:
            connected_at = ended_at
        if first_at == 0:
            first_at = ended_at
        if not (_plain(method) and _plain(target) and _plain(host) and _plain(referer) and _plain(agent)):
            method, target, host = self.escaped(method), self.escaped(target), self.escaped(host)
            referer, agent = self.escaped(referer), self.escaped(agent)
        self._room(
            4096 + len(client) + len(method) + len(host) + len(target) + len(version) + len(scheme) + len(route)
            + len(upstream) + len(backend) + len(cause) + len(referer) + len(agent) + len(request_id)
            + len(user)
        )
        self._put_bytes(client)
        self._put(b" - ", 3)
        self._put_bytes(user)
        self._put(b" [", 2)
        self._put_bytes(self.stamp)
        self._put(b'] "', 3)
        self._put_bytes(method)
        self._put(b" ", 1)
        self._put_bytes(target)
        self._put(b" HTTP/", 6)
        self._put_bytes(version)
        self._put(b'" ', 2)
        self._put_number(record[11])
        self._put(b" ", 1)
        self._put_number(record[13])
        self._put(b' "', 2)
        self._put_bytes(referer)
        self._put(b'" "', 3)
        self._put_bytes(agent)
        self._put(b'" host="', 8)
        self._put_bytes(host)
        self._put(b'" scheme=', 9)
        self._put_bytes(scheme)
        self._put(b" in=", 4)
        self._put_number(record[12])
        self._put(b" queue=", 7)
        self._put_ms(chosen_at - started_at)
        self._put(b" connect=", 9)
        self._put_ms(connected_at - chosen_at)
        self._put(b" first_byte=", 12)
        self._put_ms(first_at - connected_at)
        self._put(b" total=", 7)
        self._put_ms(ended_at - started_at)
        self._put(b" route=", 7)
        self._put_bytes(route)
        self._put(b" upstream=", 10)
        self._put_bytes(upstream)
        self._put(b" backend=", 9)
        self._put_bytes(backend)
        self._put(b" retries=", 9)
        self._put_number(record[17])
        self._put(b" cause=", 7)
        self._put_bytes(cause)
        if request_id:
            self._put(b" request_id=", 12)
            self._put_bytes(request_id)
        self._put(b"\n", 1)
        return 0


cdef inline bint _plain(bytes octets) noexcept:
    return is_plain(<const unsigned char *>PyBytes_AS_STRING(octets), PyBytes_GET_SIZE(octets))
