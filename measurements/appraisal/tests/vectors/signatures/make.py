#!/usr/bin/env python3
"""Writes signatures.json: signatures good and bad, each named for its defect, computed with Python's integers alone.

Curves: SEC 2; ECDSA: FIPS 186-5, 6.4; RSA: RFC 8017, 8.1 and 8.2. The keys come from a fixed seed, so every run
writes the same bytes.
"""
import hashlib
import json
import os
import random

RNG = random.Random("blf signature vectors v1")
MESSAGE = b"what a platform signed"


# --- DER ---------------------------------------------------------------------------------------------------------
def length(n):
    if n < 0x80:
        return bytes([n])
    raw = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(raw)]) + raw


def tlv(tag, content):
    return bytes([tag]) + length(len(content)) + content


def integer(n):
    return tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big", signed=True) if n >= 0 else n.to_bytes(
        ((-n - 1).bit_length()) // 8 + 1, "big", signed=True))


def pair(a, b):
    return tlv(0x30, integer(a) + integer(b))


# --- curves ------------------------------------------------------------------------------------------------------
class Curve:
    def __init__(self, name, size, p, b, n, g, digest, oid):
        self.name, self.size, self.p, self.b, self.n, self.g, self.digest, self.oid = name, size, p, b, n, g, digest, oid

    def add(self, one, two):
        if one is None or two is None:
            return one or two
        (x1, y1), (x2, y2), p = one, two, self.p
        if x1 == x2:
            if (y1 + y2) % p == 0:
                return None
            slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, p)
        else:
            slope = (y2 - y1) * pow(x2 - x1, -1, p)
        x = (slope * slope - x1 - x2) % p
        return x, (slope * (x1 - x) - y1) % p

    def mul(self, k, point):
        out = None
        for bit in bin(k % self.n)[2:]:
            out = self.add(out, out)
            if bit == "1":
                out = self.add(out, point)
        return out

    def lift(self, x):
        square = (x * x * x - 3 * x + self.b) % self.p
        y = pow(square, (self.p + 1) // 4, self.p)
        return (x, y) if y * y % self.p == square else None

    def hash(self, message):
        return int.from_bytes(hashlib.new(self.digest, message).digest(), "big")

    def sign(self, d, message, k):
        r = self.mul(k, self.g)[0] % self.n
        return r, pow(k, -1, self.n) * (self.hash(message) + r * d) % self.n

    def key_for(self, point, s, message):
        """The key under which (x of `point`, s) is right: nobody knows its private half."""
        r = point[0] % self.n
        minus = self.mul(self.n - self.hash(message) % self.n, self.g)
        return self.mul(pow(r, -1, self.n), self.add(self.mul(s, point), minus)), r

    def point(self, q, head=4):
        return bytes([head]) + q[0].to_bytes(self.size, "big") + q[1].to_bytes(self.size, "big")

    def fixed(self, r, s):
        return r.to_bytes(self.size, "big") + s.to_bytes(self.size, "big")


P256 = Curve("P256Sha256", 32,
    0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF,
    0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
     0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5),
    "sha256", "06082a8648ce3d030107")
P384 = Curve("P384Sha384", 48,
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFFFF0000000000000000FFFFFFFF,
    0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    (0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
     0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F),
    "sha384", "06052b81040022")


def ecdsa(curve):
    """Two groups: the numbers of each case in both forms, then what only one form can say."""
    n, size = curve.n, curve.size
    d = RNG.randrange(1, n)
    q = curve.mul(d, curve.g)
    e = curve.hash(MESSAGE)
    k = RNG.randrange(1, n)
    r, s = curve.sign(d, MESSAGE, k)
    both = [
        ("good", curve.point(q), r, s, True),
        ("s-negated", curve.point(q), r, n - s, True),
        ("r-zero", curve.point(q), 0, s, False),
        ("s-zero", curve.point(q), r, 0, False),
        ("both-zero", curve.point(q), 0, 0, False),
        ("r-one-s-one", curve.point(q), 1, 1, False),
        ("r-order", curve.point(q), n, s, False),
        ("s-order", curve.point(q), r, n, False),
        ("r-prime", curve.point(q), curve.p, s, False),
        ("all-ones", curve.point(q), 2 ** (8 * size) - 1, 2 ** (8 * size) - 1, False),
        ("swapped", curve.point(q), s, r, False),
        ("r-plus-one", curve.point(q), r + 1, s, False),
        ("s-minus-one", curve.point(q), r, s - 1, False),
        ("key-compressed", bytes([2 + (q[1] & 1)]) + curve.point(q)[1:1 + size], r, s, False),
        ("key-hybrid", curve.point(q, 6 + (q[1] & 1)), r, s, False),
        ("key-with-parity-in-head", curve.point(q, 5), r, s, False),
        ("key-without-head", curve.point(q)[1:], r, s, False),
        ("key-infinity", b"\0", r, s, False),
        ("key-infinity-padded", bytes(1 + 2 * size), r, s, False),
        ("key-origin", b"\4" + bytes(2 * size), r, s, False),
        ("key-off-curve", curve.point((q[0], q[1] ^ 1)), r, s, False),
        ("key-negated", curve.point((q[0], curve.p - q[1])), r, s, False),
        ("key-x-prime", b"\4" + curve.p.to_bytes(size, "big") + curve.point(q)[1 + size:], r, s, False),
        ("key-truncated", curve.point(q)[:-1], r, s, False),
        ("key-extended", curve.point(q) + b"\0", r, s, False),
        ("key-empty", b"", r, s, False),
        ("key-spki", tlv(0x30, tlv(0x30, bytes.fromhex("06072a8648ce3d0201" + curve.oid)) + tlv(3, b"\0" + curve.point(q))),
         r, s, False),
    ]
    # u1 G + u2 Q: infinity; and a doubling, where adding formulas fail.
    minus = -e * pow(d, -1, n) % n
    both.append(("sum-at-infinity", curve.point(q), minus, RNG.randrange(1, n), False))
    double = curve.mul(k, curve.g)[0] % n
    dd = e * pow(double, -1, n) % n
    both.append(("sum-is-doubling", curve.point(curve.mul(dd, curve.g)), double, 2 * e * pow(k, -1, n) % n, True))
    for name, private in (("key-generator", 1), ("key-generator-negated", n - 1)):
        both.append((name, curve.point(curve.mul(private, curve.g)), *curve.sign(private, MESSAGE, k), True))
    # x of the point in [n, p): r is x - n. The same r without a wrap is another point's.
    x = n + 1
    while curve.lift(x) is None:
        x += 1
    wrapped, r_wrapped = curve.key_for(curve.lift(x), s, MESSAGE)
    both.append(("x-above-order", curve.point(wrapped), r_wrapped, s, True))
    both.append(("x-above-order-s-changed", curve.point(wrapped), r_wrapped, s + 1, False))
    x = 1
    while curve.lift(x) is None:
        x += 1
    small, r_small = curve.key_for(curve.lift(x), s, MESSAGE)
    both.append(("r-small", curve.point(small), r_small, s, True))
    one, r_one = curve.key_for(curve.mul(k, curve.g), 1, MESSAGE)
    both.append(("s-one", curve.point(one), r_one, 1, True))
    while r >> (8 * size - 8):
        k += 1
        r, s = curve.sign(d, MESSAGE, k)
    both.append(("r-one-byte-shorter", curve.point(q), r, s, True))
    while s >> (8 * size - 8):
        k += 1
        r, s = curve.sign(d, MESSAGE, k)
    both.append(("s-one-byte-shorter", curve.point(q), r, s, True))

    k = RNG.randrange(1, n)
    r, s = curve.sign(d, MESSAGE, k)
    ri, si, key = integer(r), integer(s), curve.point(q)
    body = ri + si
    padded = lambda v: tlv(2, b"\0" + integer(v)[2:])
    asn1 = [
        ("r-padded", tlv(0x30, padded(r) + si)),
        ("s-padded", tlv(0x30, ri + padded(s))),
        ("r-negative", pair(r - 2 ** (8 * size), s)),
        ("s-negative", pair(r, -s)),
        ("r-empty", tlv(0x30, tlv(2, b"") + si)),
        ("s-missing", tlv(0x30, ri)),
        ("third-integer", tlv(0x30, body + integer(1))),
        ("behind-the-integers", tlv(0x30, body + b"\5\0")),
        ("behind-the-sequence", tlv(0x30, body) + b"\0"),
        ("truncated", tlv(0x30, body)[:-1]),
        ("set", tlv(0x31, body)),
        ("octet-string", tlv(0x30, tlv(4, ri[2:]) + si)),
        ("length-long-form", b"\x30\x81" + bytes([len(body)]) + body),
        ("length-longer-form", b"\x30\x82\0" + bytes([len(body)]) + body),
        ("length-indefinite", b"\x30\x80" + body + b"\0\0"),
        ("length-huge", b"\x30\x84\x7f\xff\xff\xff" + body),
        ("integer-length-long-form", tlv(0x30, b"\2\x81" + ri[1:] + si)),
        ("integer-length-huge", tlv(0x30, b"\2\x84\x7f\xff\xff\xff" + ri[2:] + si)),
        ("integer-constructed", tlv(0x30, b"\x22" + ri[1:] + si)),
        ("r-plus-order", pair(r + n, s)),
        ("s-plus-order", pair(r, s + n)),
        ("r-plus-two-to-the-512", pair(r + 2 ** 512, s)),
        ("fixed-form", curve.fixed(r, s)),
        ("null", b"\5\0"),
        ("empty", b""),
    ]
    fixed = [
        ("truncated", curve.fixed(r, s)[:-1]),
        ("extended", curve.fixed(r, s) + b"\0"),
        ("wide", r.to_bytes(size + 1, "big") + s.to_bytes(size + 1, "big")),
        ("half", curve.fixed(r, s)[:size]),
        ("little-endian", r.to_bytes(size, "little") + s.to_bytes(size, "little")),
        ("asn1-form", pair(r, s)),
        ("zeros", bytes(2 * size)),
        ("empty", b""),
    ]
    for form, write, more in (("Asn1", pair, asn1), ("Fixed", curve.fixed, fixed)):
        cases = [case(name, point, write(r, s), valid) for name, point, r, s, valid in both]
        cases += [case(name, key, signature, False) for name, signature in more]
        yield {"algorithm": f"Ecdsa{curve.name}{form}", "message": MESSAGE.hex(), "cases": cases}


# --- RSA ---------------------------------------------------------------------------------------------------------
SMALL = [p for p in range(3, 5000, 2) if all(p % q for q in range(3, int(p ** 0.5) + 1, 2))]


def prime(bits, e):
    while True:
        candidate = RNG.getrandbits(bits) | 3 << (bits - 2) | 1
        if any(candidate % p == 0 for p in SMALL) or (candidate - 1) % e == 0:
            continue
        if all(pow(a, candidate - 1, candidate) == 1 for a in (2, 3, 5)):
            return candidate


class Rsa:
    def __init__(self, bits, e=65537):
        while True:
            p, q = prime(bits - bits // 2, e), prime(bits // 2, e)
            if (p * q).bit_length() == bits:
                break
        self.bits, self.n, self.e, self.d = bits, p * q, e, pow(e, -1, (p - 1) * (q - 1))
        self.size = (bits + 7) // 8

    def key(self):
        return pair(self.n, self.e)

    def raw(self, encoded):
        return pow(int.from_bytes(encoded, "big"), self.d, self.n).to_bytes(self.size, "big")


SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
SHA384_INFO = bytes.fromhex("3041300d060960864801650304020205000430")


def pkcs1(rsa, message=MESSAGE, info=SHA256_INFO, digest="sha256", block=1, fill=0xFF, short=0, separator=b"\0", tail=b""):
    content = separator + info + hashlib.new(digest, message).digest() + tail
    padding = rsa.size - 2 - len(content) - short
    return bytes([0, block]) + bytes([fill]) * padding + content + b"\0" * short


def mgf1(seed, count, digest):
    out = b""
    for counter in range(count):
        if len(out) >= count:
            break
        out += hashlib.new(digest, seed + counter.to_bytes(4, "big")).digest()
    return out[:count]


def pss(rsa, message=MESSAGE, digest="sha384", mask="sha384", salt=48, trailer=0xBC, one=1, zero=0, prefix=bytes(8), top=0):
    em_bits = rsa.bits - 1
    em_len = (em_bits + 7) // 8
    hashed = hashlib.new(digest, message).digest()
    if salt is None:
        salt = em_len - len(hashed) - 2
    salt = RNG.randbytes(salt)
    h = hashlib.new(digest, prefix + hashed + salt).digest()
    db = bytearray(em_len - len(salt) - len(h) - 2) + bytes([one]) + salt
    if zero:
        db[em_len - len(salt) - len(h) - 3] = zero
    masked = bytearray(a ^ b for a, b in zip(db, mgf1(h, len(db), mask)))
    masked[0] = masked[0] & (0xFF >> (8 * em_len - em_bits)) | top
    return bytes(masked) + h + bytes([trailer])


def rsa_groups():
    usual = Rsa(2048)
    keys = [(f"modulus-{bits}", Rsa(bits), 2048 <= bits <= 8192) for bits in
            (1024, 2047, 2049, 2050, 2055, 2056, 2057, 3072, 4096, 8192, 8193)]
    keys += [("exponent-3", Rsa(2048, 3), True), ("exponent-of-33-bits", Rsa(2048, 2 ** 33 - 9), True),
             ("exponent-of-34-bits", Rsa(2048, 2 ** 33 + 17), False)]
    n, e, der = usual.n, usual.e, usual.key()
    spki = tlv(0x30, bytes.fromhex("300d06092a864886f70d0101010500") + tlv(3, b"\0" + der))
    body = integer(n) + integer(e)
    key_forms = [
        ("key-spki", spki), ("key-behind", der + b"\0"), ("key-third-integer", tlv(0x30, body + integer(1))),
        ("key-modulus-padded", tlv(0x30, tlv(2, b"\0" + integer(n)[4:]) + integer(e))),
        ("key-modulus-negative", pair(n - 2 ** 2048, e)), ("key-exponent-padded", tlv(0x30, integer(n) + tlv(2, b"\0\1\0\1"))),
        ("key-exponent-negative", pair(n, -e)), ("key-length-longer-form", b"\x30\x83\0" + der[2:]),
        ("key-swapped", pair(e, n)), ("key-truncated", der[:-1]), ("key-empty", b""), ("key-modulus-alone", tlv(0x30, integer(n))),
        ("key-modulus-zero", pair(0, e)), ("key-exponent-zero", pair(n, 0)), ("key-exponent-even", pair(n, 65536)),
        ("key-modulus-even", pair(n - 1, e)), ("key-modulus-larger", pair(n + 2, e)), ("key-set", b"\x31" + der[1:]),
        ("key-exponent-other", pair(n, 3)), ("key-exponent-two", pair(n, 2)), ("key-exponent-modulus", pair(n, n)),
    ]
    # Under exponent 1 the padded message is its own signature.
    one = pair(n, 1)
    for algorithm, encode in (("RsaPkcs1Sha256", pkcs1), ("RsaPssSha384", pss)):
        good = usual.raw(encode(usual))
        number = int.from_bytes(good, "big")
        message, short = MESSAGE, None
        for counter in range(4096):  # a signature that begins with a zero byte
            message = MESSAGE + counter.to_bytes(2, "big")
            short = usual.raw(encode(usual, message=message))
            if short[0] == 0:
                break
        cases = [case("good", der, good, True), case("good-short", der, short, True, message)]
        cases += [
            case("short-without-its-zero", der, short[1:], False, message),
            case("another-message", der, good, False, MESSAGE + b"\0"),
            case("extended", der, good + b"\0", False), case("padded", der, b"\0" + good, False),
            case("truncated", der, good[:-1], False), case("empty", der, b"", False),
            case("zero", der, bytes(256), False), case("one", der, (1).to_bytes(256, "big"), False),
            case("modulus", der, n.to_bytes(256, "big"), False), case("modulus-less-one", der, (n - 1).to_bytes(256, "big"), False),
            case("all-ones", der, b"\xff" * 256, False), case("negated", der, (n - number).to_bytes(256, "big"), False),
            case("flipped", der, bytes([good[0] ^ 1]) + good[1:], False),
            case("exponent-1", one, encode(usual), False),
        ]
        # The same signature plus the modulus, where that still fits.
        for counter in range(4096):
            message = MESSAGE + counter.to_bytes(2, "big")
            number = int.from_bytes(usual.raw(encode(usual, message=message)), "big")
            if number + n < 2 ** 2048:
                cases.append(case("plus-modulus", der, (number + n).to_bytes(256, "big"), False, message))
                break
        cases += [case(name, form, good, False) for name, form in key_forms]
        cases += [case(name, rsa.key(), rsa.raw(encode(rsa)), valid) for name, rsa, valid in keys]
        if encode is pkcs1:
            other = [
                ("sha384", dict(info=SHA384_INFO, digest="sha384")), ("sha1", dict(info=bytes.fromhex("3021300906052b0e03021a05000414"), digest="sha1")),
                ("no-digest-info", dict(info=b"")), ("no-null", dict(info=bytes.fromhex("302f300b0609608648016503040201") + b"\4\x20")),
                ("oid-of-sha384", dict(info=SHA256_INFO[:14] + b"\2" + SHA256_INFO[15:])),
                ("digest-info-long-form", dict(info=b"\x30\x81\x31" + SHA256_INFO[2:])),
                ("block-type-0", dict(block=0)), ("block-type-2", dict(block=2)), ("fill-of-zeros", dict(fill=0)), ("fill-of-fe", dict(fill=0xFE)),
                ("no-separator", dict(separator=b"")), ("separator-1", dict(separator=b"\1")), ("two-separators", dict(separator=b"\0\0")),
                ("behind-the-digest", dict(tail=b"\0")), ("short-padding-and-garbage", dict(short=190)), ("digest-truncated", dict(info=SHA256_INFO, digest="sha224")),
            ]
        else:
            other = [
                ("salt-0", dict(salt=0)), ("salt-32", dict(salt=32)), ("salt-47", dict(salt=47)), ("salt-49", dict(salt=49)), ("salt-max", dict(salt=None)),
                ("sha256", dict(digest="sha256", mask="sha256")), ("sha512", dict(digest="sha512", mask="sha512")), ("mgf1-sha256", dict(mask="sha256")),
                ("trailer-cc", dict(trailer=0xCC)), ("one-is-zero", dict(one=0)), ("one-is-two", dict(one=2)), ("padding-not-zero", dict(zero=1)),
                ("prefix-not-zero", dict(prefix=b"\0" * 7 + b"\1")), ("prefix-missing", dict(prefix=b"")), ("top-bit-set", dict(top=0x80)),
            ]
        for name, how in other:
            encoded = encode(usual, **how)
            while int.from_bytes(encoded, "big") >= n:  # a top bit that no signature of this modulus can carry
                encoded = encode(usual, **how)
            cases.append(case(name, der, usual.raw(encoded), False))
        yield {"algorithm": algorithm, "message": MESSAGE.hex(), "cases": cases}


def case(name, key, signature, valid, message=None):
    more = {} if message is None else {"message": message.hex()}
    return {"name": name, "public_key": key.hex(), "signature": signature.hex(), "valid": valid, **more}


if __name__ == "__main__":
    groups = [*ecdsa(P256), *ecdsa(P384), *rsa_groups()]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "signatures.json"), "w") as out:
        json.dump({"groups": groups}, out, indent=1)
        out.write("\n")
