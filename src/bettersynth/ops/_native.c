/* Inner loops that numpy cannot do fast. Optional: _native.py compiles this file where a C compiler is at hand, and
 * every function has an equal in Python beside its caller. No state, no allocation that outlives a call. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SHA__) && defined(__SSSE3__)
#include <immintrin.h>
#define HAS_SHA_INSTRUCTIONS 1
#endif

/* ---- SHA-1 (FIPS 180-4): the first four bytes of the digest, read as little-endian ---- */

#ifdef HAS_SHA_INSTRUCTIONS

#define ROUNDS(i, f)                                                                                    \
    if (i >= 4)                                                                                         \
        w[i & 3] = _mm_sha1msg2_epu32(                                                                  \
            _mm_xor_si128(_mm_sha1msg1_epu32(w[i & 3], w[(i + 1) & 3]), w[(i + 2) & 3]), w[(i + 3) & 3]); \
    e = i ? _mm_sha1nexte_epu32(old, w[i & 3]) : _mm_add_epi32(last, w[0]);                             \
    old = abcd;                                                                                         \
    abcd = _mm_sha1rnds4_epu32(abcd, e, f);

static void sha1_block(uint32_t state[5], const uint8_t *block)
{
    const __m128i swap = _mm_set_epi64x(0x0001020304050607LL, 0x08090a0b0c0d0e0fLL);
    __m128i w[4], old, e, last = _mm_set_epi32((int)state[4], 0, 0, 0);
    __m128i abcd = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0x1B);
    const __m128i before = abcd;
    for (int i = 0; i < 4; i++)
        w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), swap);
    old = abcd;
    ROUNDS(0, 0) ROUNDS(1, 0) ROUNDS(2, 0) ROUNDS(3, 0) ROUNDS(4, 0)
    ROUNDS(5, 1) ROUNDS(6, 1) ROUNDS(7, 1) ROUNDS(8, 1) ROUNDS(9, 1)
    ROUNDS(10, 2) ROUNDS(11, 2) ROUNDS(12, 2) ROUNDS(13, 2) ROUNDS(14, 2)
    ROUNDS(15, 3) ROUNDS(16, 3) ROUNDS(17, 3) ROUNDS(18, 3) ROUNDS(19, 3)
    last = _mm_sha1nexte_epu32(old, last);
    state[4] = (uint32_t)_mm_extract_epi32(last, 3);
    _mm_storeu_si128((__m128i *)state, _mm_shuffle_epi32(_mm_add_epi32(abcd, before), 0x1B));
}

#else

static uint32_t rotate(uint32_t x, int n) { return (x << n) | (x >> (32 - n)); }

static void sha1_block(uint32_t state[5], const uint8_t *block)
{
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8
             | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) { f = (b & c) | (~b & d); k = 0x5A827999; }
        else if (i < 40) { f = b ^ c ^ d; k = 0x6ED9EBA1; }
        else if (i < 60) { f = (b & c) | (b & d) | (c & d); k = 0x8F1BBCDC; }
        else { f = b ^ c ^ d; k = 0xCA62C1D6; }
        uint32_t t = rotate(a, 5) + f + e + k + w[i];
        e = d; d = c; c = rotate(b, 30); b = a; a = t;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d; state[4] += e;
}

#endif

static uint32_t sha1_first(const uint8_t *data, int64_t size)
{
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t block[64];
    int64_t left = size;
    for (; left >= 64; left -= 64, data += 64)
        sha1_block(state, data);
    memset(block, 0, 64);
    memcpy(block, data, (size_t)left);
    block[left] = 0x80;
    if (left >= 56) {
        sha1_block(state, block);
        memset(block, 0, 64);
    }
    for (int i = 0; i < 8; i++)
        block[63 - i] = (uint8_t)((uint64_t)size * 8 >> (8 * i));
    sha1_block(state, block);
    return __builtin_bswap32(state[0]);
}

/* ---- MinHash ---- */

#define LANES 16

static void minima(const uint32_t *hashes, int64_t count, const uint64_t *a, const uint64_t *b, int64_t padded,
                   uint32_t *out)
{
    const uint64_t prime = ((uint64_t)1 << 61) - 1;
    for (int64_t j = 0; j < padded; j += LANES) {
        uint64_t factor[LANES], offset[LANES];
        uint32_t least[LANES];
        for (int i = 0; i < LANES; i++) {
            factor[i] = a[j + i];
            offset[i] = b[j + i];
            least[i] = 0xFFFFFFFFu;
        }
        for (int64_t k = 0; k < count; k++) {
            const uint64_t h = hashes[k];
            for (int i = 0; i < LANES; i++) {
                uint64_t x = h * factor[i] + offset[i]; /* wraps at 64 bits, as numpy does */
                x = (x & prime) + (x >> 61);
                x += (x + 1) >> 61; /* the low bits of x - prime, when x has reached it */
                uint32_t low = (uint32_t)x;
                least[i] = low < least[i] ? low : least[i];
            }
        }
        memcpy(out + j, least, sizeof least);
    }
}

/* Where tokens begin and end. By space: empty ones are left out, and the text is rewritten with single spaces between,
 * so that a window of tokens is a run of bytes. By character: each UTF-8 character is a token. */
static int64_t tokens(const uint8_t *text, int64_t size, int by_space, uint8_t *copy, int32_t *start, int32_t *stop)
{
    int64_t count = 0;
    if (!by_space) {
        memcpy(copy, text, (size_t)size);
        for (int64_t i = 0; i < size; i++)
            if ((text[i] & 0xC0) != 0x80) {
                if (count)
                    stop[count - 1] = (int32_t)i;
                start[count++] = (int32_t)i;
            }
        if (count)
            stop[count - 1] = (int32_t)size;
        return count;
    }
    int64_t at = 0, i = 0;
    while (i < size) {
        while (i < size && text[i] == ' ')
            i++;
        if (i == size)
            break;
        if (count)
            copy[at++] = ' ';
        start[count] = (int32_t)at;
        while (i < size && text[i] != ' ')
            copy[at++] = text[i++];
        stop[count++] = (int32_t)at;
    }
    return count;
}

/* Band hashes of `docs` texts. a, b: factors and offsets, `bands * rows` rounded up to 16 of each.
 * bands_out: [docs, bands]; windows_out: [docs] number of windows. Returns 0, or -1 without memory. */
int bs_minhash(const uint8_t *data, const int32_t *offsets, int64_t docs, int by_space, int64_t window,
               const uint64_t *const permutations[2], const int64_t shape[2], uint64_t *bands_out, int64_t *windows_out)
{
    const int64_t bands = shape[0], rows = shape[1], padded = (bands * rows + LANES - 1) / LANES * LANES;
    int64_t longest = 0;
    for (int64_t d = 0; d < docs; d++)
        if (offsets[d + 1] - offsets[d] > longest)
            longest = offsets[d + 1] - offsets[d];
    uint8_t *copy = malloc((size_t)longest + 1);
    int32_t *marks = malloc(sizeof(int32_t) * 2 * ((size_t)longest + 1));
    uint32_t *hashes = malloc(sizeof(uint32_t) * ((size_t)longest + 1));
    uint32_t *least = malloc(sizeof(uint32_t) * (size_t)padded);
    const int ok = copy && marks && hashes && least;
    for (int64_t d = 0; ok && d < docs; d++) {
        int32_t *start = marks, *stop = marks + longest + 1;
        int64_t found = tokens(data + offsets[d], offsets[d + 1] - offsets[d], by_space, copy, start, stop);
        int64_t count = found >= window ? found - window + 1 : 0;
        for (int64_t i = 0; i < count; i++)
            hashes[i] = sha1_first(copy + start[i], stop[i + window - 1] - start[i]);
        minima(hashes, count, permutations[0], permutations[1], padded, least);
        for (int64_t band = 0; band < bands; band++) {
            uint64_t mixed = 0;
            for (int64_t row = 0; row < rows; row++) {
                mixed = (mixed ^ least[band * rows + row]) * 0x9E3779B97F4A7C15ull;
                mixed ^= mixed >> 32;
            }
            bands_out[d * bands + band] = mixed;
        }
        windows_out[d] = count;
    }
    free(copy);
    free(marks);
    free(hashes);
    free(least);
    return ok ? 0 : -1;
}
