/* worker._resample: a picture squashed to 224×224 by Pillow's bicubic filter, byte for byte and faster.

   The algorithm is that of Pillow 13 (src/libImaging/Resample.c, licence MIT-CMU, once HPND): weights are normalised as
   doubles and rounded to fixed point; rows are resized first (columns, in a tall picture) and rounded to bytes, then the
   others. Here both passes weigh LANES neighbouring bytes at once, which a compiler turns into vector instructions; for
   the rows, LANES of them are interleaved byte by byte, so that neighbours share their weight. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define SIDE 224
#define BANDS 3
#define ROW (SIDE * BANDS)
#define LANES 32
#define PRECISION_BITS (32 - 8 - 2)
#define SUPPORT 2.0
#define MAX_SIDE (1 << 24) /* up to here, every whole number is a float */

#if PY_BIG_ENDIAN
#error "`transpose` is for little-endian processors; on others, Pillow does it"
#endif
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_CPU
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

_Static_assert(SIDE % LANES == 0 && ROW % 8 == 0, "whole blocks go into the square");

/* For each of SIDE places: the first source place, how many there are, and their weights. */
typedef struct {
    int first[SIDE];
    int count[SIDE];
    int32_t *weights; /* [SIDE][stride] */
    size_t stride;
} Filter;

/* Memory for so many things of a size, or NULL. */
static void *
room(size_t count, size_t size) {
    return count > PY_SSIZE_T_MAX / size ? NULL : PyMem_Malloc(count * size);
}

static double
bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    }
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

/* The filter for the part from `start` to `end` of `size` places. False where memory is missing. */
static int
make_filter(Filter *filter, int size, float start, float end) {
    double scale = (double)(end - start) / SIDE;
    double stretch = scale < 1.0 ? 1.0 : scale;
    double support = SUPPORT * stretch, inverse = 1.0 / stretch;
    filter->stride = (size_t)ceil(support) * 2 + 1;
    filter->weights = room(filter->stride, SIDE * sizeof(int32_t));
    double *exact = room(filter->stride, sizeof(double));
    if (!filter->weights || !exact) {
        PyMem_Free(exact);
        return 0;
    }
    for (int i = 0; i < SIDE; i++) {
        double center = start + (i + 0.5) * scale, sum = 0.0;
        int first = (int)(center - support + 0.5), last = (int)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        last = last > size ? size : last;
        for (int j = 0; j < last - first; j++) {
            exact[j] = bicubic((j + first - center + 0.5) * inverse);
            sum += exact[j];
        }
        int32_t *weights = filter->weights + i * filter->stride;
        for (int j = 0; j < last - first; j++) {
            double weight = (sum != 0.0 ? exact[j] / sum : exact[j]) * (1 << PRECISION_BITS);
            weights[j] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
        }
        filter->first[i] = first;
        filter->count[i] = last - first;
    }
    PyMem_Free(exact);
    return 1;
}

/* Neighbouring bytes, each the weighed sum of `count` that lie `stride` apart. A sum stays within 31 bits, since weights
   add up to one and few are negative. */
INLINE void
weigh(uint8_t *restrict out, const uint8_t *restrict in, size_t stride, const int32_t *weights, int count, int lanes) {
    int32_t sums[LANES];
    for (int i = 0; i < lanes; i++) {
        sums[i] = 1 << (PRECISION_BITS - 1);
    }
    for (int j = 0; j < count; j++, in += stride) {
        for (int i = 0; i < lanes; i++) {
            sums[i] += in[i] * weights[j];
        }
    }
    for (int i = 0; i < lanes; i++) {
        int32_t value = sums[i] >> PRECISION_BITS;
        value = value < 0 ? 0 : value;
        out[i] = (uint8_t)(value > 255 ? 255 : value);
    }
}

/* What lies `shift` bits up in the one and what lies below in the other change places, where the mask says. */
INLINE void
swap(uint64_t *one, uint64_t *other, int shift, uint64_t mask) {
    uint64_t change = ((*one >> shift) ^ *other) & mask;
    *other ^= change;
    *one ^= change << shift;
}

/* Rows and columns of 8×8 bytes change places: halves, quarters, then bytes (Hacker's Delight, 7-3). */
INLINE void
transpose(uint64_t rows[8]) {
    for (int i = 0; i < 4; i++) {
        swap(&rows[i], &rows[i + 4], 32, 0x00000000ffffffff);
    }
    for (int i = 0; i < 4; i++) {
        swap(&rows[i + i / 2 * 2], &rows[i + i / 2 * 2 + 2], 16, 0x0000ffff0000ffff);
    }
    for (int i = 0; i < 8; i += 2) {
        swap(&rows[i], &rows[i + 1], 8, 0x00ff00ff00ff00ff);
    }
}

/* LANES rows of `length` bytes as one: the first byte of each, then the second of each. */
INLINE void
interleave(uint8_t *restrict out, const uint8_t *const rows[LANES], size_t length) {
    size_t at = 0;
    for (; at + 8 <= length; at += 8) {
        for (int row = 0; row < LANES; row += 8) {
            uint64_t square[8];
            for (int i = 0; i < 8; i++) {
                memcpy(&square[i], rows[row + i] + at, 8);
            }
            transpose(square);
            for (int i = 0; i < 8; i++) {
                memcpy(out + (at + i) * LANES + row, &square[i], 8);
            }
        }
    }
    for (; at < length; at++) {
        for (int row = 0; row < LANES; row++) {
            out[at * LANES + row] = rows[row][at];
        }
    }
}

/* The way back, into LANES rows of ROW bytes. */
INLINE void
separate(uint8_t *restrict out, const uint8_t *restrict in) {
    for (int at = 0; at < ROW; at += 8) {
        for (int row = 0; row < LANES; row += 8) {
            uint64_t square[8];
            for (int i = 0; i < 8; i++) {
                memcpy(&square[i], in + (at + i) * LANES + row, 8);
            }
            transpose(square);
            for (int i = 0; i < 8; i++) {
                memcpy(out + (row + i) * ROW + at, &square[i], 8);
            }
        }
    }
}

/* `count` rows of `width` pixels, each to SIDE pixels. `mixed` has room for LANES rows of `in`, and `out` for so many
   rows that LANES divides them. */
FOR_EACH_CPU static void
squash_rows(uint8_t *out, const uint8_t *in, int count, int width, const Filter *filter, uint8_t *mixed) {
    uint8_t squashed[ROW * LANES];
    for (int y = 0; y < count; y += LANES) {
        const uint8_t *rows[LANES];
        for (int i = 0; i < LANES; i++) {
            rows[i] = in + (size_t)(y + i < count ? y + i : count - 1) * width * BANDS;
        }
        interleave(mixed, rows, (size_t)width * BANDS);
        for (int i = 0; i < ROW; i++) {
            int x = i / BANDS;
            const uint8_t *from = mixed + ((size_t)filter->first[x] * BANDS + i % BANDS) * LANES;
            const int32_t *weights = filter->weights + x * filter->stride;
            weigh(squashed + i * LANES, from, BANDS * LANES, weights, filter->count[x], LANES);
        }
        separate(out + (size_t)y * ROW, squashed);
    }
}

/* Columns of rows of `length` bytes, each to SIDE. The first row of `in` is the first that the filter needs. */
FOR_EACH_CPU static void
squash_columns(uint8_t *out, const uint8_t *in, size_t length, const Filter *filter) {
    for (int y = 0; y < SIDE; y++, out += length) {
        const uint8_t *from = in + (filter->first[y] - filter->first[0]) * length;
        const int32_t *weights = filter->weights + y * filter->stride;
        size_t at = 0;
        for (; at + LANES <= length; at += LANES) {
            weigh(out + at, from + at, length, weights, filter->count[y], LANES);
        }
        for (; at < length; at++) {
            weigh(out + at, from + at, length, weights, filter->count[y], 1);
        }
    }
}

/* SIDE×SIDE pixels from the box of a picture. False where memory is missing. */
static int
squash_box(uint8_t *out, const uint8_t *in, int width, int height, const float box[4]) {
    Filter across = {.weights = NULL}, down = {.weights = NULL};
    uint8_t *mixed = room(width, BANDS * LANES), *between = NULL;
    int done = 0;
    if (mixed && make_filter(&across, width, box[0], box[2]) && make_filter(&down, height, box[1], box[3])) {
        size_t length = (size_t)width * BANDS;
        int first = down.first[0], count = down.first[SIDE - 1] + down.count[SIDE - 1] - first;
        if (height > SIDE && height - SIDE > 2 * (width - SIDE)) { /* Pillow's rule; the order shows in the rounding */
            if ((between = room(SIDE, length))) {
                squash_columns(between, in + first * length, length, &down);
                squash_rows(out, between, SIDE, width, &across, mixed);
                done = 1;
            }
        } else if ((between = room((size_t)count + LANES - 1, ROW))) {
            squash_rows(between, in + first * length, count, width, &across, mixed);
            squash_columns(out, between, ROW, &down);
            done = 1;
        }
    }
    PyMem_Free(between);
    PyMem_Free(down.weights);
    PyMem_Free(across.weights);
    PyMem_Free(mixed);
    return done;
}

static PyObject *
squash(PyObject *module, PyObject *args) {
    Py_buffer pixels;
    int width, height;
    float box[4];
    PyObject *squashed = NULL;
    if (!PyArg_ParseTuple(
            args, "y*ii(ffff):squash", &pixels, &width, &height, &box[0], &box[1], &box[2], &box[3]
        )) {
        return NULL;
    }
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE) {
        PyErr_Format(PyExc_ValueError, "a side is not within 1 to %d pixels: %d by %d", MAX_SIDE, width, height);
    } else if ((uint64_t)pixels.len != (uint64_t)width * height * BANDS) {
        PyErr_Format(PyExc_ValueError, "%zd bytes are not %d by %d pixels in RGB", pixels.len, width, height);
    } else if (!(0 <= box[0] && box[0] <= box[2] && box[2] <= width) ||
               !(0 <= box[1] && box[1] <= box[3] && box[3] <= height)) { /* so that NaN is outside too */
        PyErr_Format(PyExc_ValueError, "the box is not within %d by %d pixels", width, height);
    } else if ((squashed = PyBytes_FromStringAndSize(NULL, ROW * SIDE)) &&
               !squash_box((uint8_t *)PyBytes_AsString(squashed), pixels.buf, width, height, box)) {
        Py_CLEAR(squashed);
        PyErr_NoMemory();
    }
    PyBuffer_Release(&pixels);
    return squashed;
}

static PyMethodDef methods[] = {
    {"squash", squash, METH_VARARGS,
     "squash(pixels, width, height, box) -> bytes\n\nThe box (left, upper, right, lower) of RGB bytes as 224×224 RGB."},
    {NULL, NULL, 0, NULL},
};
static PyModuleDef_Slot slots[] = {{0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_resample", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC
PyInit__resample(void) {
    return PyModuleDef_Init(&definition);
}
