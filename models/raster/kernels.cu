// The rasteriser on CUDA: compiled by NVRTC, which travels with torch, when it is first used; no compiler on the user's machine.
// Contract and names as in differentiable.py. Every picture n of a batch has its own points, all share the triangles.

struct Corners { float ax, ay, az, bx, by, bz, cx, cy, cz, area; };

__device__ Corners corners_of(const float* points, const int* triangles, int t) {
    const float* a = points + 3 * triangles[3 * t];
    const float* b = points + 3 * triangles[3 * t + 1];
    const float* c = points + 3 * triangles[3 * t + 2];
    Corners k = {a[0], a[1], a[2], b[0], b[1], b[2], c[0], c[1], c[2], 0.0f};
    k.area = (k.bx - k.ax) * (k.cy - k.ay) - (k.by - k.ay) * (k.cx - k.ax);
    return k;
}

__device__ void weights_at(const Corners& k, float px, float py, float* wa, float* wb, float* wc) {
    float scale = 1.0f / k.area;
    *wa = ((k.bx - px) * (k.cy - py) - (k.by - py) * (k.cx - px)) * scale;
    *wb = ((k.cx - px) * (k.ay - py) - (k.cy - py) * (k.ax - px)) * scale;
    *wc = 1.0f - *wa - *wb;
}

// One thread for every STRIPES-th row of a triangle. The nearest surface has the largest 1/z, and positive floats order like
// their bits; of equally near ones the lowest triangle wins, as on the CPU.
#define STRIPES 8
extern "C" __global__ void nearest(
    const float* points, const int* triangles, unsigned long long* winner, int count, int vertices, int faces, int height, int width
) {
    long long job = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (job >= (long long)count * faces * STRIPES) return;
    int stripe = job % STRIPES, t = (job / STRIPES) % faces, n = job / STRIPES / faces;
    Corners k = corners_of(points + 3LL * n * vertices, triangles, t);
    if (k.az <= 1e-6f || k.bz <= 1e-6f || k.cz <= 1e-6f || k.area == 0.0f) return;
    int x0 = max(0, (int)ceilf(fminf(k.ax, fminf(k.bx, k.cx)) - 0.5f));
    int y0 = max(0, (int)ceilf(fminf(k.ay, fminf(k.by, k.cy)) - 0.5f));
    int x1 = min(width - 1, (int)floorf(fmaxf(k.ax, fmaxf(k.bx, k.cx)) - 0.5f));
    int y1 = min(height - 1, (int)floorf(fmaxf(k.ay, fmaxf(k.by, k.cy)) - 0.5f));
    for (int y = y0 + stripe; y <= y1; y += STRIPES)
        for (int x = x0; x <= x1; ++x) {
            float wa, wb, wc;
            weights_at(k, x + 0.5f, y + 0.5f, &wa, &wb, &wc);
            if (wa < 0.0f || wb < 0.0f || wc < 0.0f) continue;
            float inverse = wa / k.az + wb / k.bz + wc / k.cz;
            unsigned long long key = ((unsigned long long)__float_as_uint(inverse) << 32) | (0xFFFFFFFFu - (unsigned)t);
            atomicMax(winner + ((long long)n * height + y) * width + x, key);
        }
}

extern "C" __global__ void weigh(
    const float* points, const int* triangles, const unsigned long long* winner, int* triangle, float* barycentric, float* depth,
    int count, int vertices, int height, int width
) {
    long long pixel = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= (long long)count * height * width) return;
    unsigned long long key = winner[pixel];
    if (key == 0) {
        triangle[pixel] = -1;
        depth[pixel] = __int_as_float(0x7f800000);
        barycentric[3 * pixel] = barycentric[3 * pixel + 1] = barycentric[3 * pixel + 2] = 0.0f;
        return;
    }
    int t = (int)(0xFFFFFFFFu - (unsigned)(key & 0xFFFFFFFFu));
    int x = pixel % width, y = (pixel / width) % height, n = pixel / width / height;
    Corners k = corners_of(points + 3LL * n * vertices, triangles, t);
    float wa, wb, wc;
    weights_at(k, x + 0.5f, y + 0.5f, &wa, &wb, &wc);
    float ia = wa / k.az, ib = wb / k.bz, ic = wc / k.cz, total = ia + ib + ic;
    triangle[pixel] = t;
    barycentric[3 * pixel] = ia / total;
    barycentric[3 * pixel + 1] = ib / total;
    barycentric[3 * pixel + 2] = ic / total;
    depth[pixel] = 1.0f / total;
}

extern "C" __global__ void carry(
    const int* triangle, const float* barycentric, const int* triangles, const float* attributes, float* out,
    int count, int vertices, int channels, int height, int width
) {
    long long pixel = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= (long long)count * height * width) return;
    int t = triangle[pixel], n = pixel / width / height;
    float* to = out + pixel * channels;
    if (t < 0) {
        for (int c = 0; c < channels; ++c) to[c] = 0.0f;
        return;
    }
    const float* from = attributes + (long long)n * vertices * channels;
    const float *a = from + (long long)triangles[3 * t] * channels, *b = from + (long long)triangles[3 * t + 1] * channels;
    const float* d = from + (long long)triangles[3 * t + 2] * channels;
    float wa = barycentric[3 * pixel], wb = barycentric[3 * pixel + 1], wc = barycentric[3 * pixel + 2];
    for (int c = 0; c < channels; ++c) to[c] = wa * a[c] + wb * b[c] + wc * d[c];
}

extern "C" __global__ void carry_back(
    const int* triangle, const float* barycentric, const int* triangles, const float* attributes, const float* to_values,
    float* to_attributes, float* to_barycentric, int count, int vertices, int channels, int height, int width
) {
    long long pixel = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= (long long)count * height * width) return;
    int t = triangle[pixel], n = pixel / width / height;
    const float* given = to_values + pixel * channels;
    for (int k = 0; k < 3; ++k) {
        float total = 0.0f;
        if (t >= 0) {
            long long at = ((long long)n * vertices + triangles[3 * t + k]) * channels;
            float weight = barycentric[3 * pixel + k];
            for (int c = 0; c < channels; ++c) {
                atomicAdd(to_attributes + at + c, weight * given[c]);
                total += attributes[at + c] * given[c];
            }
        }
        to_barycentric[3 * pixel + k] = total;
    }
}

extern "C" __global__ void points_back(
    const float* points, const int* triangles, const int* triangle, const float* barycentric, const float* depth,
    const float* to_barycentric, const float* to_depth, float* out, int count, int vertices, int height, int width
) {
    long long pixel = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= (long long)count * height * width) return;
    int t = triangle[pixel], n = pixel / width / height;
    if (t < 0) return;
    const float* own = points + 3LL * n * vertices;
    Corners k = corners_of(own, triangles, t);
    float total = 1.0f / depth[pixel], mixed = 0.0f;
    for (int i = 0; i < 3; ++i) mixed += to_barycentric[3 * pixel + i] * barycentric[3 * pixel + i];
    // each weight's gradient over the picture; their sum is 0
    float gx[3] = {(k.by - k.cy) / k.area, (k.cy - k.ay) / k.area, (k.ay - k.by) / k.area};
    float gy[3] = {(k.cx - k.bx) / k.area, (k.ax - k.cx) / k.area, (k.bx - k.ax) / k.area};
    float z[3] = {k.az, k.bz, k.cz}, along_x = 0.0f, along_y = 0.0f;
    for (int i = 0; i < 3; ++i) {
        float to_inverse = (to_barycentric[3 * pixel + i] - mixed) / total - to_depth[pixel] / (total * total);
        float weight = barycentric[3 * pixel + i] * total * z[i];
        along_x += to_inverse / z[i] * gx[i];
        along_y += to_inverse / z[i] * gy[i];
        atomicAdd(out + 3 * ((long long)n * vertices + triangles[3 * t + i]) + 2, -to_inverse * weight / (z[i] * z[i]));
    }
    for (int i = 0; i < 3; ++i) {
        float weight = barycentric[3 * pixel + i] * total * z[i];
        float* at = out + 3 * ((long long)n * vertices + triangles[3 * t + i]);
        // moving a corner moves the pixel's place in the triangle the other way, by its weight
        atomicAdd(at, -weight * along_x);
        atomicAdd(at + 1, -weight * along_y);
    }
}
