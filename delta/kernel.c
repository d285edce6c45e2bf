/* The inner loops of the codecs for 16-bit elements. codec.py and legacy_fp16.py explain the algorithms and
   do the same with numpy if this file has not been compiled. setup.sh compiles it to libkernel.so. All
   buffers have `count` elements and do not overlap; nothing is allocated and nothing can fail. */

#include <stdint.h>
#include <string.h>

/* Compile a loop twice, with and without AVX2; the processor decides at run time. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define VECTORS __attribute__((target_clones("avx2", "default")))
#else
#define VECTORS
#endif

/* Incremented whenever a function below changes: a library of another version is not used. */
int delta_kernel_version(void) { return 2; }

/* Integers in the order of the floats; its own inverse. */
static inline uint16_t monotone(uint16_t bits) { return bits ^ (uint16_t)((int16_t)bits >> 15 & 0x7FFF); }

enum { BLOCK = 2048 };

/* Exponents of `count` elements, at most BLOCK. */
VECTORS static void exponents_of(const uint16_t *restrict base, int64_t count, int shift, int mask,
                                 uint8_t *restrict exponents) {
    for (int64_t i = 0; i < count; i++) exponents[i] = (uint8_t)(base[i] >> shift & mask);
}

/* The position of the first element of each exponent: elements are grouped stably by the base's exponent.
   Each exponent has four counters, because neighbours often share an exponent and successive increments of
   the same counter have to wait for each other. */
static void first_places(const uint16_t *base, int64_t count, int shift, int mask, uint32_t *places) {
    uint32_t counters[4][256] = {{0}};
    uint8_t exponents[BLOCK];
    for (int64_t start = 0; start < count; start += BLOCK) {
        int64_t length = count - start < BLOCK ? count - start : BLOCK, i = 0;
        exponents_of(base + start, length, shift, mask, exponents);
        for (; i + 4 <= length; i += 4)
            for (int k = 0; k < 4; k++) counters[k][exponents[i + k]]++;
        for (; i < length; i++) counters[0][exponents[i]]++;
    }
    uint32_t sum = 0;
    for (int exponent = 0; exponent < 256; exponent++) {
        places[exponent] = sum;
        for (int k = 0; k < 4; k++) sum += counters[k][exponent];
    }
}

/* Zigzag-encoded differences. */
VECTORS static void codes_of(const uint16_t *restrict target, const uint16_t *restrict base, int64_t count,
                             uint16_t *restrict codes) {
    for (int64_t i = 0; i < count; i++) {
        uint16_t difference = monotone(target[i]) - monotone(base[i]);
        codes[i] = (uint16_t)(difference << 1) ^ (uint16_t)((int16_t)difference >> 15);
    }
}

VECTORS static void to_planes(const uint16_t *restrict grouped, int64_t count, uint8_t *restrict low,
                              uint8_t *restrict high) {
    for (int64_t i = 0; i < count; i++) {
        low[i] = (uint8_t)grouped[i];
        high[i] = (uint8_t)(grouped[i] >> 8);
    }
}

/* Zigzag-encoded differences, grouped, as two byte planes; `grouped` is scratch space. */
void delta_split(const uint16_t *target, const uint16_t *base, int64_t count, int shift, int mask,
                 uint16_t *restrict grouped, uint8_t *low, uint8_t *high) {
    uint32_t places[256];
    uint8_t exponents[BLOCK];
    uint16_t codes[BLOCK];
    first_places(base, count, shift, mask, places);
    for (int64_t start = 0; start < count; start += BLOCK) {
        int64_t length = count - start < BLOCK ? count - start : BLOCK;
        exponents_of(base + start, length, shift, mask, exponents);
        codes_of(target + start, base + start, length, codes);
        for (int64_t i = 0; i < length; i++) grouped[places[exponents[i]]++] = codes[i];
    }
    to_planes(grouped, count, low, high);
}

VECTORS static void from_planes(const uint8_t *restrict low, const uint8_t *restrict high, int64_t count,
                        uint16_t *restrict grouped) {
    for (int64_t i = 0; i < count; i++) grouped[i] = (uint16_t)(low[i] | high[i] << 8);
}

VECTORS static void values_of(const uint16_t *restrict codes, const uint16_t *restrict base, int64_t count,
                              uint16_t *restrict target) {
    for (int64_t i = 0; i < count; i++) {
        uint16_t difference = (uint16_t)(codes[i] >> 1) ^ (uint16_t)-(codes[i] & 1);
        target[i] = monotone((uint16_t)(monotone(base[i]) + difference));
    }
}

/* The inverse of delta_split. */
void delta_merge(const uint8_t *low, const uint8_t *high, const uint16_t *base, int64_t count, int shift,
                 int mask, uint16_t *restrict grouped, uint16_t *target) {
    uint32_t places[256];
    uint8_t exponents[BLOCK];
    uint16_t codes[BLOCK];
    first_places(base, count, shift, mask, places);
    from_planes(low, high, count, grouped);
    for (int64_t start = 0; start < count; start += BLOCK) {
        int64_t length = count - start < BLOCK ? count - start : BLOCK;
        exponents_of(base + start, length, shift, mask, exponents);
        for (int64_t i = 0; i < length; i++) codes[i] = grouped[places[exponents[i]]++];
        values_of(codes, base + start, length, target + start);
    }
}

static inline float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* fp16 to float32, exact. Without branches, so that compilers vectorise it. */
static inline float from_half(uint16_t half) {
    uint32_t magnitude = half & 0x7FFF;
    uint32_t normal = (magnitude << 13) + (magnitude >= 0x7C00 ? 0x70000000 : 0x38000000);
    uint32_t small = as_bits((float)(int32_t)magnitude * 0x1p-24f);
    return as_float((magnitude < 0x400 ? small : normal) | (uint32_t)(half & 0x8000) << 16);
}

/* float32 to fp16, to nearest, ties to even; NaN keeps as much of its payload as fits. */
static inline uint16_t to_half(float value) {
    uint32_t bits = as_bits(value), magnitude = bits & 0x7FFFFFFF;
    uint32_t normal = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    /* Adding 0.5 rounds a number that is subnormal in fp16 at the last bit of fp16, 2^-24. */
    uint32_t small = as_bits(as_float(magnitude) + 0.5f) - 0x3F000000;
    uint32_t kept = magnitude >> 13 & 0x3FF;
    uint32_t special = 0x7C00 | (magnitude > 0x7F800000 ? (kept ? kept : 1) : 0);
    uint32_t half = magnitude < 0x38800000 ? small : magnitude < 0x47800000 ? normal : special;
    return (uint16_t)(half | (bits >> 16 & 0x8000));
}

/* fp16 sums (or differences: sign -1), added in float32 and rounded once. A base in bf16 is rounded to fp16
   first. */
VECTORS void delta_add(const uint16_t *restrict half, const uint16_t *restrict base, int64_t count,
                       int base_is_bf16, float sign, uint16_t *restrict sum) {
    if (base_is_bf16)
        for (int64_t i = 0; i < count; i++) {
            float rounded = from_half(to_half(as_float((uint32_t)base[i] << 16)));
            sum[i] = to_half(from_half(half[i]) + sign * rounded);
        }
    else
        for (int64_t i = 0; i < count; i++) sum[i] = to_half(from_half(half[i]) + sign * from_half(base[i]));
}
