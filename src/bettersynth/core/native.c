/* Inner loops that numpy cannot do fast. Optional: native.py compiles this file where a C compiler is at hand, and
 * what it does is done elsewhere too: MinHash by ops/_minhash.py, repetition by the filters and mappers that ask for it,
 * resizing by Pillow, pairs of texts by Arrow. No state, no allocation that outlives a call. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__SHA__) && defined(__SSSE3__)
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

/* ---- Repetition ---- */

static int table_bits(int64_t entries)
{
    int bits = 4;
    while (((int64_t)1 << bits) < 2 * entries)
        bits++;
    return bits;
}

/* Where a key stands in a table of 2^bits, or the free place for it. Entries are row + 1, then the key's 32 bits, so
 * that those of rows before count as free. */
static uint32_t place_of(const uint64_t *table, int bits, uint64_t entry)
{
    const uint32_t last = (uint32_t)(((uint64_t)1 << bits) - 1);
    uint32_t place = ((uint32_t)entry * 0x9E3779B1u) >> (32 - bits);
    while (table[place] >> 32 == entry >> 32 && table[place] != entry)
        place = (place + 1) & last;
    return place;
}

/* Code points of `rows` texts of valid UTF-8, and the same as bytes, 255 for all above. starts: [rows + 1] where each
 * text begins among them. Returns how many. */
int64_t bs_codes(const uint8_t *data, const int32_t *offsets, int64_t rows, uint32_t *codes, uint8_t *narrow,
                 int64_t *starts)
{
    int64_t count = 0;
    for (int64_t row = 0; row < rows; row++) {
        const uint8_t *at = data + (offsets[row] - offsets[0]), *const end = data + (offsets[row + 1] - offsets[0]);
        starts[row] = count;
        while (at < end) {
            uint32_t c = *at;
            if (c < 0x80 || end - at < 2 + (c >= 0xE0) + (c >= 0xF0)) { /* the second: no UTF-8 after all */
                at += 1;
            } else if (c < 0xE0) {
                c = (c & 0x1F) << 6 | (at[1] & 0x3Fu);
                at += 2;
            } else if (c < 0xF0) {
                c = (c & 0x0F) << 12 | (at[1] & 0x3Fu) << 6 | (at[2] & 0x3Fu);
                at += 3;
            } else {
                c = (c & 0x07) << 18 | (at[1] & 0x3Fu) << 12 | (at[2] & 0x3Fu) << 6 | (at[3] & 0x3Fu);
                at += 4;
            }
            codes[count] = c;
            narrow[count++] = c < 255 ? (uint8_t)c : 255;
        }
    }
    starts[rows] = count;
    return count;
}

/* found[row] = 1 for the rows in which a hash stands twice. rows: ascending; found: zero at first.
 * Returns 0, or -1 without memory. */
int bs_repeats(const uint32_t *hashes, const uint32_t *rows, int64_t count, uint8_t *found)
{
    int64_t longest = 0;
    for (int64_t i = 0, first = 0; i < count; i++) {
        first = i && rows[i] == rows[i - 1] ? first : i;
        longest = i - first + 1 > longest ? i - first + 1 : longest;
    }
    const int bits = table_bits(longest);
    uint64_t *table = calloc((size_t)1 << bits, sizeof *table);
    if (!table)
        return -1;
    for (int64_t i = 0; i < count; i++) {
        if (found[rows[i]])
            continue;
        const uint64_t entry = ((uint64_t)rows[i] + 1) << 32 | hashes[i];
        const uint32_t place = place_of(table, bits, entry);
        found[rows[i]] = table[place] == entry;
        table[place] = entry;
    }
    free(table);
    return 0;
}

static int64_t longest_of(const int64_t *starts, int64_t rows)
{
    int64_t longest = 0;
    for (int64_t row = 0; row < rows; row++)
        longest = starts[row + 1] - starts[row] > longest ? starts[row + 1] - starts[row] : longest;
    return longest;
}

/* found[row] = 1 for the texts in which two sentences have the same letters, and for those with characters that end a
 * sentence in other ways. kinds: 1 letter, 2 line feed, 4 mark, 8 such a character. A sentence ends after a mark, unless
 * that mark stands directly behind one that has ended a sentence. Sentences without letters count when they have
 * `least` blanks, or `least` characters when others than letters are compared, too. Returns 0, or -1 without memory. */
int bs_sentences(const uint32_t *letters, const uint8_t *kinds, const int64_t *starts, int64_t rows, int64_t least,
                 int compares_all, uint8_t *found)
{
    const int bits = table_bits(longest_of(starts, rows));
    uint64_t *table = calloc((size_t)1 << bits, sizeof *table);
    if (!table)
        return -1;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t stop = starts[row + 1];
        int64_t seen = 0, blanks = 0;
        int is_second = 0;
        uint64_t hash = 0;
        for (int64_t i = starts[row]; i < stop && !found[row]; i++) {
            const uint8_t kind = kinds[i];
            if (kind == 1) {
                hash = (hash + letters[i] + 1) * 0x9E3779B97F4A7C15ull;
                hash ^= hash >> 32;
                seen++;
            } else if (kind == 8) {
                found[row] = 1;
            }
            blanks += compares_all || letters[i] == ' ' || letters[i] == '\t';
            const int ends = kind == 2 || (kind == 4 && !is_second);
            is_second = kind == 4 && !is_second;
            if (!ends && i + 1 < stop)
                continue;
            if (seen || blanks >= least) {
                const uint64_t entry = ((uint64_t)row + 1) << 32 | (uint32_t)hash;
                const uint32_t place = place_of(table, bits, entry);
                found[row] |= table[place] == entry;
                table[place] = entry;
            }
            hash = 0;
            seen = blanks = 0;
        }
    }
    free(table);
    return 0;
}

/* The words of all texts: runs without kind 1, from the first to the last character of kind 2 in them; runs that have
 * none are no words. Returns how many. */
int64_t bs_words(const uint8_t *kinds, const int64_t *starts, int64_t rows, uint32_t *row_out, int64_t *start_out,
                 int64_t *stop_out)
{
    int64_t count = 0;
    for (int64_t row = 0; row < rows; row++) {
        int64_t first = -1, final = -1;
        for (int64_t i = starts[row]; i <= starts[row + 1]; i++) {
            if (i < starts[row + 1] && kinds[i] != 1) {
                if (kinds[i] == 2) {
                    first = first < 0 ? i : first;
                    final = i;
                }
                continue;
            }
            if (first >= 0) {
                row_out[count] = (uint32_t)row;
                start_out[count] = first;
                stop_out[count++] = final + 1;
            }
            first = -1;
        }
    }
    return count;
}

/* Whether two runs of n words are the same words. */
static int same_words(const uint32_t *codes, const int64_t *starts, const int64_t *stops, int64_t a, int64_t b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const int64_t size = stops[a + i] - starts[a + i];
        if (size != stops[b + i] - starts[b + i]
            || memcmp(codes + starts[a + i], codes + starts[b + i], sizeof *codes * (size_t)size))
            return 0;
    }
    return 1;
}

/* For each text the share of runs of n words that stand more than once, compared by their characters; 0 for texts of
 * fewer words. word_rows: ascending; ratios: zero at first. Returns 0, or -1 without memory. */
int bs_word_repetition(const uint32_t *codes, const uint32_t *word_rows, const int64_t *starts, const int64_t *stops,
                       int64_t words, int64_t n, double *ratios)
{
    int64_t longest = 0;
    for (int64_t i = 0, first = 0; i < words; i++) {
        first = i && word_rows[i] == word_rows[i - 1] ? first : i;
        longest = i - first + 1 > longest ? i - first + 1 : longest;
    }
    const int bits = table_bits(longest);
    const uint32_t last = (uint32_t)(((uint64_t)1 << bits) - 1), factor = 0x9E3779B1u;
    uint64_t *table = calloc((size_t)1 << bits, sizeof *table); /* row + 1, then hash */
    int64_t *first = malloc(sizeof *first << bits);
    uint32_t *counts = malloc(sizeof *counts << bits), *hashes = malloc(sizeof *hashes * ((size_t)longest + 1));
    const int ok = table && first && counts && hashes;
    for (int64_t begin = 0, end = 0; ok && begin < words; begin = end) {
        const uint32_t row = word_rows[begin];
        int64_t repeated = 0;
        for (end = begin; end < words && word_rows[end] == row; end++) {
            uint32_t hash = 1;
            for (int64_t i = starts[end]; i < stops[end]; i++)
                hash = hash * factor + codes[i];
            hashes[end - begin] = hash ^ hash >> 15;
        }
        const int64_t total = end - begin - n + 1;
        for (int64_t i = 0; i < total; i++) {
            uint32_t hash = 0;
            for (int64_t j = 0; j < n; j++)
                hash = hash * factor + hashes[i + j];
            const uint64_t entry = ((uint64_t)row + 1) << 32 | hash;
            uint32_t place = (hash * factor) >> (32 - bits);
            while (table[place] >> 32 == entry >> 32
                   && (table[place] != entry || !same_words(codes, starts, stops, first[place], begin + i, n)))
                place = (place + 1) & last;
            if (table[place] != entry) {
                table[place] = entry;
                first[place] = begin + i;
                counts[place] = 0;
            }
            counts[place]++;
            repeated += counts[place] == 2 ? 2 : counts[place] > 2;
        }
        if (total > 0)
            ratios[row] = (double)repeated / (double)total;
    }
    free(table);
    free(first);
    free(counts);
    free(hashes);
    return ok ? 0 : -1;
}

static int descending(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* For each text the share of repeated runs of n characters: with D different ones, of which R stand more than once, the
 * min(floor(sqrt(D)), R) largest counts over all. Runs are compared by their characters. A text has fewer than 2^27
 * characters. Returns 0, or -1 without memory. */
int bs_char_repetition(const uint32_t *codes, const int64_t *starts, int64_t rows, int64_t n, double *ratios)
{
    const int64_t longest = longest_of(starts, rows);
    const int bits = table_bits(longest);
    const uint32_t last = (uint32_t)(((uint64_t)1 << bits) - 1), factor = 0x9E3779B1u;
    uint64_t *table = calloc((size_t)1 << bits, sizeof *table); /* row + 1, then hash */
    int64_t *first = malloc(sizeof *first << bits);
    uint32_t *counts = malloc(sizeof *counts << bits), *several = malloc(sizeof *several * ((size_t)longest + 1));
    const int ok = table && first && counts && several;
    uint32_t highest = 1;
    for (int64_t i = 1; i < n; i++)
        highest *= factor;
    for (int64_t row = 0; ok && row < rows; row++) {
        const int64_t total = starts[row + 1] - starts[row] - n + 1;
        int64_t distinct = 0, repeated = 0, sum = 0;
        uint32_t hash = 0;
        ratios[row] = 0.0;
        for (int64_t i = starts[row]; total > 0 && i < starts[row + 1]; i++) {
            const int64_t begin = i - n + 1;
            hash = hash * factor + codes[i];
            if (begin < starts[row])
                continue;
            const uint64_t entry = ((uint64_t)row + 1) << 32 | hash;
            uint32_t place = (hash * factor) >> (32 - bits);
            while (table[place] >> 32 == entry >> 32
                   && (table[place] != entry || memcmp(codes + first[place], codes + begin, sizeof *codes * (size_t)n)))
                place = (place + 1) & last;
            if (table[place] != entry) {
                table[place] = entry;
                first[place] = begin;
                counts[place] = 0;
                distinct++;
            }
            if (++counts[place] == 2)
                several[repeated++] = place;
            hash -= codes[begin] * highest;
        }
        if (!repeated)
            continue;
        for (int64_t i = 0; i < repeated; i++)
            several[i] = counts[several[i]];
        const int64_t root = (int64_t)sqrt((double)distinct), top = root < repeated ? root : repeated;
        if (top < repeated)
            qsort(several, (size_t)repeated, sizeof *several, descending);
        for (int64_t i = 0; i < top; i++)
            sum += several[i];
        ratios[row] = (double)sum / (double)total;
    }
    free(table);
    free(first);
    free(counts);
    free(several);
    return ok ? 0 : -1;
}

/* ---- Pillow's resampling of 8-bit pictures ---- */

#define BITS 22 /* fraction of the weights: 32 - 8 - 2, as in Pillow's Resample.c */

static uint8_t clipped(int32_t value)
{
    value >>= BITS;
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

/* sums[c] of pixels[i] * weight[i] over the pixels of `groups` groups, for each of the three colours. A group is what 16
 * lanes hold: 5 pixels of 3 bytes and an empty lane, or 4 pixels of 4 bytes. */
static void products(const uint8_t *pixels, const int32_t *weights, int64_t groups, int bytes, uint32_t sums[3])
{
    const int64_t step = LANES / bytes * bytes;
    uint32_t lanes[LANES];
#if defined(__AVX512F__)
    __m512i sum = _mm512_setzero_si512();
    for (int64_t group = 0; group < groups; group++) {
        __m512i some = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(pixels + step * group)));
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(some, _mm512_loadu_si512(weights + LANES * group)));
    }
    _mm512_storeu_si512(lanes, sum);
#else
    memset(lanes, 0, sizeof lanes);
    for (int64_t group = 0; group < groups; group++)
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += (uint32_t)(pixels[step * group + lane] * weights[LANES * group + lane]);
#endif
    for (int c = 0; c < 3; c++) {
        sums[c] = 0;
        for (int lane = c; lane < step; lane += bytes)
            sums[c] += lanes[lane];
    }
}

/* Resize a picture of three colours, first across, then down, rounding to bytes in between, as Pillow does.
 * size: width, height, and bytes of a pixel (3, or 4 of which the last is not looked at). firsts: the first pixel of
 * each result. across: results and groups of pixels each; weights[0] has 16 numbers a group. down: results and pixels
 * each; weights[1] has a number a pixel. Weights past the edge are 0. out has 3 bytes a pixel.
 * Returns 0, or -1 without memory. */
int bs_resize(const uint8_t *in, const int64_t size[3], const int32_t *const firsts[2], const int32_t *const weights[2],
              const int64_t across[2], const int64_t down[2], uint8_t *out)
{
    const int64_t bytes = size[2], row = bytes * size[0], wide = 3 * across[0];
    const size_t padded = (size_t)row + LANES * (size_t)(across[1] + 1);
    uint8_t *between = malloc((size_t)(wide * size[1]) + 1), *line = calloc(padded, 1);
    uint32_t *total = malloc((size_t)wide * sizeof *total + 1);
    const int ok = between && line && total;
    for (int64_t y = 0; ok && y < size[1]; y++) {
        memcpy(line, in + row * y, (size_t)row); /* with room behind it, where weights of 0 fall */
        for (int64_t x = 0; x < across[0]; x++) {
            uint32_t sums[3];
            products(line + bytes * firsts[0][x], weights[0] + LANES * across[1] * x, across[1], (int)bytes, sums);
            for (int c = 0; c < 3; c++)
                between[wide * y + 3 * x + c] = clipped((int32_t)(sums[c] + (1u << (BITS - 1))));
        }
    }
    for (int64_t y = 0; ok && y < down[0]; y++) {
        for (int64_t x = 0; x < wide; x++)
            total[x] = 1u << (BITS - 1);
        for (int64_t i = 0; i < down[1] && firsts[1][y] + i < size[1]; i++) {
            const uint8_t *from = between + wide * (firsts[1][y] + i);
            const uint32_t weight = (uint32_t)weights[1][y * down[1] + i];
            for (int64_t x = 0; x < wide; x++)
                total[x] += from[x] * weight;
        }
        for (int64_t x = 0; x < wide; x++)
            out[wide * y + x] = clipped((int32_t)total[x]);
    }
    free(between);
    free(line);
    free(total);
    return ok ? 0 : -1;
}

static double sinc(double x)
{
    if (x == 0.0)
        return 1.0;
    x = x * 3.14159265358979323846;
    return sin(x) / x;
}

/* Weights of Lanczos (support 3) from `size` pixels to `outs`, in fixed point. weights: [outs, most], zero at first;
 * firsts: [outs]. Returns 0, or -1 when `most` is too small. */
int bs_lanczos(int64_t size, int64_t outs, int64_t most, int32_t *firsts, int32_t *weights)
{
    const double scale = (double)size / (double)outs, widened = scale < 1.0 ? 1.0 : scale, support = 3.0 * widened;
    for (int64_t place = 0; place < outs; place++) {
        const double center = ((double)place + 0.5) * scale;
        int64_t first = (int64_t)(center - support + 0.5), last = (int64_t)(center + support + 0.5);
        double sum = 0.0;
        first = first < 0 ? 0 : first;
        last = last > size ? size : last;
        if (last - first > most)
            return -1;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t i = first; i < last; i++) {
                const double x = ((double)i - center + 0.5) * (1.0 / widened);
                double weight = -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
                if (pass == 0) {
                    sum += weight;
                    continue;
                }
                weight = (sum != 0.0 ? weight / sum : weight) * (1 << BITS);
                weights[place * most + i - first] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
            }
        firsts[place] = (int32_t)first;
    }
    return 0;
}

/* ---- Two columns of texts: those of some rows, side by side. ends: [2 * count + 1] where each is to begin ---- */

void bs_side_by_side(const uint8_t *const texts[2], const int32_t *const starts[2], const int64_t *rows, int64_t count,
                     const int32_t *ends, uint8_t *out)
{
    for (int64_t i = 0; i < 2 * count; i++)
        memcpy(out + ends[i], texts[i & 1] + starts[i & 1][rows[i >> 1]], (size_t)(ends[i + 1] - ends[i]));
}
