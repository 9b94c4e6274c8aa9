// What a decoding step does between its matrix products, one pass over memory each: see kernels.py.
//
// Names end in the type of what matrix products read: f32 or bf16. The residual stream and the cache are
// float32. Rows are shared out among threads, and nothing is summed across them: the number of threads
// changes no bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct bf16 {
    uint16_t bits;
};

inline float read(float x) { return x; }

inline float read(bf16 x) {
    const uint32_t wide = uint32_t(x.bits) << 16;
    float y;
    std::memcpy(&y, &wide, 4);
    return y;
}

inline void write(float& to, float x) { to = x; }

inline void write(bf16& to, float x) {  // to the nearest, ties to even; what is not a number stays so
    uint32_t wide;
    std::memcpy(&wide, &x, 4);
    const uint32_t rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
    to.bits = uint16_t(x != x ? 0x7fc0 : rounded);
}

// Within 2 units in the last place, and without a call, so that loops over it become vector code. Below -87 it is 0.
inline float exponential(float given) {
    const float x = std::min(std::max(given, -87.0f), 88.0f);  // in this order: what is not a number passes through
    const float power = std::nearbyint(x * 1.44269504f);
    const float rest = (x - power * 0.693359375f) + power * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * rest + 1.3981999507e-3f;
    y = y * rest + 8.3334519073e-3f;
    y = y * rest + 4.1665795894e-2f;
    y = y * rest + 1.6666665459e-1f;
    y = y * rest + 5.0000001201e-1f;
    y = y * rest * rest + rest + 1.0f;
    const int32_t wide = (int32_t(power) + 127) << 23;
    float scale;
    std::memcpy(&scale, &wide, 4);
    return given < -87.0f ? 0.0f : y * scale;
}

inline float logistic(float x) { return 1.0f / (1.0f + exponential(-x)); }

inline float dot(const float* a, const float* b, int64_t width) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) sum += a[i] * b[i];
    return sum;
}

inline void add(float* __restrict to, float weight, const float* __restrict from, int64_t width) {
    for (int64_t i = 0; i < width; i++) to[i] += weight * from[i];
}

template <class In, class Out>
void normalize(Out* out, float* stream, const In* added, const float* scale, const float* shift, int64_t rows,
               int64_t width, float eps, int rms, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        float* x = stream + row * width;
        Out* y = out + row * width;
        if (added)
            for (int64_t i = 0; i < width; i++) x[i] += read(added[row * width + i]);
        float mean = 0;
        if (!rms) {
#pragma omp simd reduction(+ : mean)
            for (int64_t i = 0; i < width; i++) mean += x[i];
            mean /= width;
        }
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; i++) squares += (x[i] - mean) * (x[i] - mean);
        const float inverse = 1.0f / std::sqrt(squares / width + eps);
        for (int64_t i = 0; i < width; i++) write(y[i], (x[i] - mean) * inverse * scale[i] + (shift ? shift[i] : 0.0f));
    }
}

// One head of one row into `to`, normalized where `scale` is given, its leading part rotated.
template <class In>
void turn(float* to, const In* from, const float* scale, const float* rotary, int64_t width, int64_t rotated,
          float eps) {
    for (int64_t i = 0; i < width; i++) to[i] = read(from[i]);
    if (scale) {
        const float inverse = 1.0f / std::sqrt(dot(to, to, width) / width + eps);
        for (int64_t i = 0; i < width; i++) to[i] *= inverse * scale[i];
    }
    for (int64_t i = 0; i < rotated; i += 2) {
        const float real = to[i], imaginary = to[i + 1];
        to[i] = real * rotary[i] - imaginary * rotary[i + 1];
        to[i + 1] = real * rotary[i + 1] + imaginary * rotary[i];
    }
}

// qkv [rows, heads + 2 kv_heads, width]; cache [2, slots, kv_heads, length, width]; mixed [rows, heads, width].
template <class T>
void attend(T* mixed, const T* qkv, float* cache, const int64_t* positions, const float* rotary,
            const float* query_scale, const float* key_scale, float eps, int64_t rows, int64_t slots, int64_t heads,
            int64_t kv_heads, int64_t width, int64_t rotated, int64_t length, int threads) {
    const int64_t group = heads / kv_heads;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> query(width), weight(length), sum(width);
#pragma omp for collapse(2) schedule(dynamic, 4)  // rows differ in length
        for (int64_t row = 0; row < rows; row++)
            for (int64_t kv_head = 0; kv_head < kv_heads; kv_head++) {
                const int64_t here = positions[row], seen = here + 1;
                const T* heads_of_row = qkv + row * (heads + 2 * kv_heads) * width;
                const float* angles = rotary + here * rotated;
                float* keys = cache + (row * kv_heads + kv_head) * length * width;
                float* values = keys + slots * kv_heads * length * width;
                turn(keys + here * width, heads_of_row + (heads + kv_head) * width, key_scale, angles, width, rotated,
                     eps);
                for (int64_t i = 0; i < width; i++)
                    values[here * width + i] = read(heads_of_row[(heads + kv_heads + kv_head) * width + i]);
                for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
                    turn(query.data(), heads_of_row + head * width, query_scale, angles, width, rotated, eps);
                    for (int64_t at = 0; at < seen; at++) weight[at] = dot(query.data(), keys + at * width, width);
                    float largest = -INFINITY, total = 0;
#pragma omp simd reduction(max : largest)
                    for (int64_t at = 0; at < seen; at++) largest = std::max(largest, weight[at]);
                    for (int64_t at = 0; at < seen; at++) weight[at] = exponential(weight[at] - largest);
#pragma omp simd reduction(+ : total)
                    for (int64_t at = 0; at < seen; at++) total += weight[at];
                    std::fill(sum.begin(), sum.end(), 0.0f);
                    for (int64_t at = 0; at < seen; at++) add(sum.data(), weight[at], values + at * width, width);
                    T* to = mixed + (row * heads + head) * width;
                    for (int64_t i = 0; i < width; i++) write(to[i], sum[i] / total);
                }
            }
    }
}

enum Activation { SILU, GELU, GELU_TANH, RELU };

inline float apply(int kind, float x) {
    switch (kind) {
        case SILU: return x * logistic(x);
        case GELU: return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
        case GELU_TANH: return x * logistic(1.59576912f * (x + 0.044715f * x * x * x));
        default: return std::max(x, 0.0f);
    }
}

// up [rows, width], or [rows, 2 width] where a gate comes before what it lets through.
template <class T, int KIND>
void activate_as(T* out, const T* up, int64_t rows, int64_t width, int gated, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const T* x = up + row * width * (gated ? 2 : 1);
        for (int64_t i = 0; i < width; i++)
            write(out[row * width + i], apply(KIND, read(x[i])) * (gated ? read(x[width + i]) : 1.0f));
    }
}

template <class T>
void activate(T* out, const T* up, int64_t rows, int64_t width, int kind, int gated, int threads) {
    if (kind == SILU) activate_as<T, SILU>(out, up, rows, width, gated, threads);
    if (kind == GELU) activate_as<T, GELU>(out, up, rows, width, gated, threads);
    if (kind == GELU_TANH) activate_as<T, GELU_TANH>(out, up, rows, width, gated, threads);
    if (kind == RELU) activate_as<T, RELU>(out, up, rows, width, gated, threads);
}

// A token of each row by inverse CDF, as draw.py does it: first the block of the vocabulary, then the token in it.
constexpr int64_t BLOCK = 256;

void draw_row(int64_t* token, float* logprob, const float* logits, float scale, double uniform, int64_t size,
              double* sums) {
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < size; i++) largest = std::max(largest, logits[i] * scale);
    const int64_t blocks = (size + BLOCK - 1) / BLOCK;
    double total = 0;
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t start = block * BLOCK, end = std::min(start + BLOCK, size);
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = start; i < end; i++) sum += exponential(logits[i] * scale - largest);
        sums[block] = sum;
        total += sum;
    }
    // Added up as the total was: the last block of any probability reaches it.
    const double target = std::min(uniform * total, std::nextafter(total, 0.0));
    int64_t block = 0;
    double before = 0;
    while (block < blocks - 1 && !(target < before + sums[block])) before += sums[block++];
    double rest = target - before;
    const int64_t start = block * BLOCK, end = std::min(start + BLOCK, size);
    int64_t found = start;  // the last one of any probability, where rounding leads beyond all of them
    for (int64_t i = start; i < end; i++) {
        const float weight = exponential(logits[i] * scale - largest);
        if (weight > 0) found = i;
        if (rest < weight) break;
        rest -= weight;
    }
    *token = found;
    *logprob = logits[found] * scale - largest - float(std::log(total));
}

void draw_greedily(int64_t* token, float* logprob, const float* logits, int64_t size) {
    const int64_t found = std::max_element(logits, logits + size) - logits;
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < size; i++) total += exponential(logits[i] - logits[found]);
    *token = found;
    *logprob = -std::log(total);
}

}  // namespace

#define NORMALIZE(NAME, IN, OUT)                                                                                     \
    void NAME(void* out, float* stream, const void* added, const float* scale, const float* shift, int64_t rows,     \
              int64_t width, float eps, int rms, int threads) {                                                      \
        normalize((OUT*)out, stream, (const IN*)added, scale, shift, rows, width, eps, rms, threads);                \
    }

#define STEP(TYPE, T)                                                                                                \
    NORMALIZE(normalize_##TYPE, T, T)                                                                                \
    NORMALIZE(finish_##TYPE, T, float)                                                                               \
    void attend_##TYPE(void* mixed, const void* qkv, float* cache, const int64_t* positions, const float* rotary,    \
                       const float* query_scale, const float* key_scale, float eps, int64_t rows, int64_t slots,     \
                       int64_t heads, int64_t kv_heads, int64_t width, int64_t rotated, int64_t length,              \
                       int threads) {                                                                                \
        attend((T*)mixed, (const T*)qkv, cache, positions, rotary, query_scale, key_scale, eps, rows, slots, heads,  \
               kv_heads, width, rotated, length, threads);                                                           \
    }                                                                                                                \
    void activate_##TYPE(void* out, const void* up, int64_t rows, int64_t width, int kind, int gated, int threads) { \
        activate((T*)out, (const T*)up, rows, width, kind, gated, threads);                                          \
    }

extern "C" {
STEP(f32, float)
STEP(bf16, bf16)

// Temperature 0: the likeliest token, with its log-probability at temperature 1.
void draw(int64_t* token, float* logprob, const float* logits, const double* temperature, const double* uniform,
          int64_t rows, int64_t size, int threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<double> sums((size + BLOCK - 1) / BLOCK);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            const float* of_row = logits + row * size;
            if (temperature[row] == 0)
                draw_greedily(token + row, logprob + row, of_row, size);
            else
                draw_row(token + row, logprob + row, of_row, float(1 / temperature[row]), uniform[row], size,
                         sums.data());
        }
    }
}
}
