# cython: language_level=3, boundscheck=False, cdivision=True
"""`scan.py` and the classes of `head.py` once more, for a C compiler. What they say of themselves holds here.

One rule: each head comes out as `scan.py` has it, to the byte; the same tests go over both.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Realloc
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memchr, memcmp, memcpy

from l7proxy.core import linekinds
from l7proxy.core.linekinds import CLAIMS, REQUEST, RESPONSE, names_shared_login
from l7proxy.core.linekinds import LONGEST_HOST as _LONGEST_HOST, MOST_ANSWER_LINES as _MOST_ANSWER_LINES
from l7proxy.core.paths import normal_path

ctypedef unsigned char octet

cdef extern from *:
    """
    /* How many octets are not printable ASCII; compilers make the inner loop wide. */
    static Py_ssize_t unprintable(const unsigned char *at, Py_ssize_t length) {
        Py_ssize_t found = 0;
        while (length > 0) {
            unsigned char some = 0;
            int each = length < 255 ? (int)length : 255;
            for (int i = 0; i < each; i++) some += (unsigned char)(at[i] - 0x20) > 0x5e;
            found += some;
            at += each;
            length -= each;
        }
        return found;
    }
    """
    Py_ssize_t unprintable(const octet *at, Py_ssize_t length) noexcept nogil

cdef enum:
    PASS, HOST, LENGTH, CONNECTION, CUT, CLAIM, VIA, REFERER, AGENT, CODING, DATE, LOGIN, FULL
    LONGEST_NAME = 32
    MOST_OF_A_LENGTH = 6

for _name, _kind in (
    ("PASS", PASS), ("HOST", HOST), ("LENGTH", LENGTH), ("CONNECTION", CONNECTION), ("CUT", CUT), ("CLAIM", CLAIM),
    ("VIA", VIA), ("REFERER", REFERER), ("AGENT", AGENT), ("CODING", CODING), ("DATE", DATE), ("LOGIN", LOGIN),
    ("FULL", FULL),
):
    if getattr(linekinds, _name) != _kind:
        raise ImportError(f"compiled from another linekinds.py: {_name}")


@cython.freelist(16)
@cython.no_gc
cdef class RequestHead:
    def __cinit__(self):
        self.method = b"GET"
        self.target = b"/"
        self.start = self.authority = self.fields = self.upgrade = self.via = self.referer = self.agent = b""
        self.host = ""
        self.path = "/"
        self.claims = ()
        self.keep_alive = True

    @property
    def lines(self):
        return self.fields.split(b"\r\n")[:-1]

    @property
    def has_body(self):
        return self.chunked or bool(self.length)


@cython.freelist(16)
@cython.no_gc
cdef class ResponseHead:
    def __cinit__(self):
        self.status = 200
        self.phrase = self.fields = self.upgrade = b""
        self.keep_alive = True

    @property
    def lines(self):
        return self.fields.split(b"\r\n")[:-1]


cdef struct Name:
    const char *text
    int kind

cdef Name _request[LONGEST_NAME + 1][MOST_OF_A_LENGTH]
cdef Name _response[LONGEST_NAME + 1][MOST_OF_A_LENGTH]
cdef octet _lower[256]
"""Of characters of a token (RFC 9110 5.6.2) the lower case, of others 0."""
cdef Py_ssize_t LONGEST_HOST = _LONGEST_HOST
cdef Py_ssize_t MOST_ANSWER_LINES = _MOST_ANSWER_LINES
cdef object _kept_alive = []
cdef char *_scratch = NULL  # one thread scans: `names_shared_login` may let another one run in the middle
cdef Py_ssize_t _scratch_size = 0


cdef _fill(Name (*table)[MOST_OF_A_LENGTH], dict kinds):
    cdef int place
    for name, kind in kinds.items():
        _kept_alive.append(name)
        place = 0
        while table[len(name)][place].text != NULL:
            place += 1
        if len(name) > LONGEST_NAME or place >= MOST_OF_A_LENGTH - 1:
            raise ImportError("the tables of _scan.pyx are too small")
        table[len(name)][place].text = PyBytes_AS_STRING(name)
        table[len(name)][place].kind = kind


_fill(_request, REQUEST)
_fill(_response, RESPONSE)
cdef octet _octet
for _octet in b"!#$%&'*+.^`|~-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz":
    _lower[_octet] = _octet + 32 if 65 <= _octet <= 90 else _octet
if CLAIMS != b"x-forwarded-":
    raise ImportError("compiled from another linekinds.py: CLAIMS")


cdef inline bint _is(const octet *at, const char *text, Py_ssize_t length) noexcept:
    """Whether a name is `text`, which is in lower case."""
    cdef Py_ssize_t i
    for i in range(length):
        if _lower[at[i]] != <octet>text[i]:
            return False
    return True


cdef inline int _kind_of(Name (*table)[MOST_OF_A_LENGTH], const octet *at, Py_ssize_t length) noexcept:
    cdef Name *names
    if length > LONGEST_NAME:
        return PASS
    names = table[length]
    while names.text != NULL:
        if _is(at, names.text, length):
            return names.kind
        names += 1
    return PASS


cdef inline bytes _cut_out(const octet *at, const octet *end):
    return PyBytes_FromStringAndSize(<const char *>at, end - at)


cdef inline bytes _stripped(const octet *at, const octet *end):
    while at < end and at[0] == c" ":
        at += 1
    while at < end and end[-1] == c" ":
        end -= 1
    return _cut_out(at, end)


cdef inline int _stays(const octet *at, Py_ssize_t length) noexcept:
    """What Connection says: 1 to stay, 0 to close, -1 something else."""
    if length == 11 and (memcmp(at, b" keep-alive", 11) == 0 or memcmp(at, b" Keep-Alive", 11) == 0):
        return 1
    if length == 10 and memcmp(at, b"keep-alive", 10) == 0:
        return 1
    if length == 6 and at[0] == c" " and (at[1] == c"c" or at[1] == c"C") and memcmp(at + 2, b"lose", 4) == 0:
        return 0
    if length == 5 and memcmp(at, b"close", 5) == 0:
        return 0
    return -1


cdef inline long long _length(const octet *at, const octet *end) noexcept:
    """What Content-Length says; -1 where it is not plain."""
    cdef long long found = 0
    while at < end and at[0] == c" ":
        at += 1
    while at < end and end[-1] == c" ":
        end -= 1
    if at == end or end - at > 15:
        return -1
    while at < end:
        if at[0] < c"0" or at[0] > c"9":
            return -1
        found = found * 10 + (at[0] - c"0")
        at += 1
    return found


cdef inline bint _is_chunked(const octet *at, const octet *end) noexcept:
    while at < end and at[0] == c" ":
        at += 1
    while at < end and end[-1] == c" ":
        end -= 1
    return end - at == 7 and _is(at, b"chunked", 7)


cdef bint _read_host(RequestHead head, const octet *at, const octet *end):
    """Set `authority` and `host`; whether the value is a plain name or IPv4 address, with a port or without one."""
    cdef const octet *start
    cdef bint small = True
    cdef str host
    if end - at > LONGEST_HOST:
        return False
    while at < end and at[0] == c" ":
        at += 1
    while at < end and end[-1] == c" ":
        end -= 1
    start = at
    while at < end and at[0] != c":":
        if at[0] == c".":
            if at == start or at[-1] == c".":
                return False
        elif c"A" <= at[0] <= c"Z":
            small = False
        elif not (c"a" <= at[0] <= c"z" or c"0" <= at[0] <= c"9" or at[0] == c"-"):
            return False
        at += 1
    if at == start or at[-1] == c".":
        return False
    host = PyUnicode_DecodeASCII(<const char *>start, at - start, NULL)
    head.host = host if small else host.lower()
    head.authority = _cut_out(start, end)
    if at == end:
        return True
    if end - at < 2 or end - at > 5:
        return False
    at += 1
    while at < end:
        if at[0] < c"0" or at[0] > c"9":
            return False
        at += 1
    return True


cdef inline bytes _method(const octet *at, Py_ssize_t length):
    if length == 3:
        if memcmp(at, b"GET", 3) == 0:
            return b"GET"
        if memcmp(at, b"PUT", 3) == 0:
            return b"PUT"
    elif length == 4:
        if memcmp(at, b"POST", 4) == 0:
            return b"POST"
        if memcmp(at, b"HEAD", 4) == 0:
            return b"HEAD"
    elif length == 5:
        if memcmp(at, b"PATCH", 5) == 0:
            return b"PATCH"
    elif length == 6:
        if memcmp(at, b"DELETE", 6) == 0:
            return b"DELETE"
    return None


cdef int _room(Py_ssize_t size) except -1:
    global _scratch, _scratch_size
    cdef char *made
    if size > _scratch_size:
        made = <char *>PyMem_Realloc(_scratch, size + 4096)
        if made == NULL:
            raise MemoryError
        _scratch = made
        _scratch_size = size + 4096
    return 0


cdef int _read_target(RequestHead head, const octet *at, const octet *end) except -1:
    """Set `target`, `path` and `odd`."""
    cdef const octet *here = at
    cdef bint plain = True
    head.target = _cut_out(at, end)
    while here < end and here[0] != c"?":
        if here[0] == c"%" or here[0] == c"\\":
            plain = False
            head.odd = True
        elif here[0] == c"." and here[-1] == c".":
            head.odd = True
        elif here[0] == c"." and here[-1] == c"/":
            plain = False
            head.odd = True
        here += 1
    head.path = PyUnicode_DecodeASCII(<const char *>at, here - at, NULL)
    if not plain:
        head.path = normal_path(head.path)
    return 0


cpdef RequestHead scan_request(bytes data, Py_ssize_t most_headers=100):
    """The head in `data` (without its empty line), or None."""
    cdef const octet *at = <const octet *>PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef const octet *whole_end = at + size
    cdef const octet *end
    cdef const octet *line
    cdef const octet *target
    cdef const octet *target_end
    cdef const octet *kept
    cdef char *out
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t length
    cdef int kind, stays
    cdef long long number
    cdef bytes value
    cdef list claims = None
    cdef RequestHead head

    end = <const octet *>memchr(at, c"\r", size)
    if end == NULL:
        return None  # no Host
    target = <const octet *>memchr(at, c" ", end - at)
    if target == NULL or end - target < 11 or target[1] != c"/" or memcmp(end - 9, b" HTTP/1.1", 9) != 0:
        return None
    value = _method(at, target - at)
    target += 1
    target_end = end - 9
    length = target_end - target
    if value is None or memchr(target, c" ", length) != NULL or memchr(target, c"#", length) != NULL:
        return None
    head = RequestHead.__new__(RequestHead)
    head.method = value
    head.start = _cut_out(at, end)
    _room(size + 2)
    out = _scratch
    at = end + 2
    kept = at

    while end < whole_end:
        if whole_end - end < 2 or end[1] != c"\n":
            return None
        line = at = end + 2
        count += 1
        end = <const octet *>memchr(at, c"\r", whole_end - at)
        if end == NULL:
            end = whole_end
        while at < end and _lower[at[0]]:
            at += 1
        if at == end or at[0] != c":" or at == line or at + 1 == end:
            return None
        length = at - line
        kind = _kind_of(_request, line, length)
        at += 1
        if kind == PASS:
            if length < 12 or not _is(line, b"x-forwarded-", 12):
                continue
            kind = CLAIM
        if kind == AGENT:
            head.agent = _stripped(at, end)
            continue
        if kind == REFERER:
            head.referer = _stripped(at, end)
            continue
        if kind == HOST:
            if head.authority or not _read_host(head, at, end):
                return None
            continue
        if kind == LENGTH:
            number = _length(at, end)
            if number < 0 or head.length is not None:
                return None
            head.length = number
            continue
        if kind == LOGIN:
            head.bound = head.bound or names_shared_login(_cut_out(at, end))
            continue
        if kind == VIA:
            value = _cut_out(at, end)
            head.via = head.via + b"," + value if head.via else value
            continue
        if kind == CONNECTION:
            stays = _stays(at, end - at)
            if stays < 0:
                return None
            if stays == 0:
                head.keep_alive = False
        elif kind == CLAIM:
            if claims is None:
                claims = []
            claims.append(_cut_out(line, end))
        elif kind != CUT:
            return None
        # the line does not go on
        if line > kept:
            memcpy(out, kept, line - kept)
            out += line - kept
        kept = end + 2

    at = <const octet *>PyBytes_AS_STRING(data)
    if not head.authority or count > most_headers or unprintable(at, size) != 2 * count:
        return None
    if kept < end:
        memcpy(out, kept, end - kept)
        out += end - kept
        out[0] = c"\r"
        out[1] = c"\n"
        out += 2
    head.fields = PyBytes_FromStringAndSize(_scratch, out - _scratch)
    _read_target(head, target, target_end)
    if claims is not None:
        head.claims = tuple(claims)
    return head


cpdef ResponseHead scan_response(bytes data):
    """The head in `data` (without its empty line), or None."""
    cdef const octet *whole = <const octet *>PyBytes_AS_STRING(data)
    cdef const octet *at = whole
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef const octet *whole_end = at + size
    cdef const octet *end
    cdef const octet *line
    cdef const octet *kept
    cdef char *out
    cdef Py_ssize_t count = 0
    cdef int kind, stays, status
    cdef long long number
    cdef ResponseHead head

    end = <const octet *>memchr(at, c"\r", size)
    if end == NULL:
        end = whole_end
    if end - at < 13 or memcmp(at, b"HTTP/1.1 ", 9) != 0 or at[12] != c" ":
        return None
    if not (c"2" <= at[9] <= c"5" and c"0" <= at[10] <= c"9" and c"0" <= at[11] <= c"9"):
        return None
    status = (at[9] - c"0") * 100 + (at[10] - c"0") * 10 + (at[11] - c"0")
    if status == 204:
        return None
    head = ResponseHead.__new__(ResponseHead)
    head.status = status
    if end - at == 15 and at[13] == c"O" and at[14] == c"K":
        head.phrase = b"OK"
    else:
        head.phrase = _cut_out(at + 13, end)
    _room(size + 2)
    out = _scratch
    kept = end + 2

    while end < whole_end:
        if whole_end - end < 2 or end[1] != c"\n":
            return None
        line = at = end + 2
        count += 1
        end = <const octet *>memchr(at, c"\r", whole_end - at)
        if end == NULL:
            end = whole_end
        while at < end and _lower[at[0]]:
            at += 1
        if at == end or at[0] != c":" or at == line or at + 1 == end:
            return None
        kind = _kind_of(_response, line, at - line)
        at += 1
        if kind == PASS:
            continue
        if kind == LENGTH:
            number = _length(at, end)
            if number < 0 or head.length is not None:
                return None
            head.length = number
            continue
        if kind == DATE:
            head.dated = True
            continue
        if kind == LOGIN:
            head.bound = head.bound or names_shared_login(_cut_out(at, end))
            continue
        if kind == CONNECTION:
            stays = _stays(at, end - at)
            if stays < 0:
                return None
            if stays == 0:
                head.keep_alive = False
        elif kind == CODING:
            if head.chunked or not _is_chunked(at, end):
                return None
            head.chunked = True
        elif kind != CUT:
            return None
        # the line does not go on
        if line > kept:
            memcpy(out, kept, line - kept)
            out += line - kept
        kept = end + 2

    if count > MOST_ANSWER_LINES or unprintable(whole, size) != 2 * count or (head.chunked and head.length is not None):
        return None
    if kept < end:
        memcpy(out, kept, end - kept)
        out += end - kept
        out[0] = c"\r"
        out[1] = c"\n"
        out += 2
    head.fields = PyBytes_FromStringAndSize(_scratch, out - _scratch)
    return head
