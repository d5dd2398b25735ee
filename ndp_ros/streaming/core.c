// Copyright 2026 the ndp_ros authors
// SPDX-License-Identifier: BSD-3-Clause

/* The body of a tick when nothing is unusual.
 *
 * Follower, guard, confirmer, mailbox and clock are Python; this module works on their own memory,
 * their arrays and the numbers that they declare as ctypes fields. Each function does what the
 * Python code would do, to the same bits, or returns False and changes nothing: a limit that is
 * met, a reading in doubt, a request, a segment that may not start as it is, a late heartbeat are
 * left to Python. Nothing is decided here that Python would decide otherwise.
 *
 * Comparisons of sums, whose rounding depends on the order of their terms, are made narrower by
 * more than this rounding, so that whatever passes here passes there.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_DOF 64
#define BINS 96
#define HEAD 40 /* bytes: time, arm time, ticks, sequence, phase */
#define RETRIES 200
#define SAMPLES 64
enum { HOLDING = 1, WAITING = 2, FOLLOWING = 3 };

/* The numbers that the Python classes of these names declare as fields. */
typedef struct { int64_t phase, sequence, index, end, due, admitted; double stretch;
                 int64_t enabled, current, accepted, refused, refused_before;
                 double ignore_before; } Follower;
typedef struct { int64_t version, slot, generation, mark, length, width, skipped; } Motion;
typedef struct { int64_t stamp; } Slot;
typedef struct { int64_t torque_known; } Guard;
typedef struct { double seen, finite_at, gripper_time; int64_t passed; } Confirmer;
typedef struct { double began, time, interval; } Travel;
typedef struct { int64_t suspended; } Recovery;
typedef struct { int64_t previous, waits_since, request, changed, parent_silent;
                 double settles_until; } Turn;

/* What lies in shared memory: a segment, followed by g and origin (dof), w (dof, largest N), and
   the head of a response, 64 bytes after its counter and 64 before its data. */
typedef struct { double stamp; int64_t sequence, slot, generation, n, scaled; double values[]; }
    Segment;
typedef struct { double generation, length, width, duration, samples; } Head;
typedef struct { double period_ns, max_spin, spin, busy;
                 int64_t ticks, missed, returned, origin, count, deadline; } Clock;
typedef struct { int64_t total, worst; } Histogram;

/* One buffer each, by name, with its size in doubles as a function of dof and n (0: any). */
#define BUFFERS(X) \
    X(follower, Follower, 0) X(guard, Guard, 0) X(turn, Turn, 0) X(recovery, Recovery, 0) \
    X(clock, Clock, 0) X(lateness, Histogram, 0) X(cost, Histogram, 0) \
    X(lateness_counts, uint64_t, BINS) X(cost_counts, uint64_t, BINS) \
    X(setpoint, double, 3 * d) X(lower, double, d) X(upper, double, d) X(max_velocity, double, d) \
    X(limit_low, double, 7 * d) X(limit_high, double, 7 * d) X(half_over_a, double, d) \
    X(command_position, double, d) X(command_velocity, double, d) X(command_torque, double, d) \
    X(command_low, double, 3 * d) X(command_high, double, 3 * d) X(last_torque, double, n) \
    X(measured_high, double, 2 * n) \
    X(position, double, d) X(velocity, double, d) X(effort, double, d) \
    X(motion_0, Motion, 0) X(motion_1, Motion, 0) \
    X(columns_0, char, 0) X(columns_1, char, 0) X(units_0, double, 3) X(units_1, double, 3) \
    X(segment, Slot, 0) X(segment_own, char, 0) X(segment_shared, char, 0) \
    X(segment_counter, uint64_t, 1) X(responses, char, 0) \
    X(words, int64_t, 2) X(request_head, uint64_t, 1) \
    X(state_own, char, 0) X(state_shared, char, 0) X(state_counter, uint64_t, 1) \
    X(status_own, char, 0) X(status_shared, char, 0) X(status_counter, uint64_t, 1) \
    X(sample_shared, char, 0) X(sample_head, uint64_t, 1) \
    /* of arms whose readings are confirmed */ \
    X(confirmer, Confirmer, 0) X(travel, Travel, 0) X(turns, double, d) X(base, double, 3 * d) \
    X(now, double, 3 * d) X(allowed, double, 3 * d) X(rates, double, 3 * d) \
    X(start, double, n) X(last_velocity, double, n) X(integral, double, n) \
    /* of an arm that is always at its last command */ \
    X(loopback_position, double, d) X(loopback_velocity, double, d) \
    /* of computed torque; all of n joints */ \
    X(gains, double, 2) X(viscous, char, 0) X(demanded, char, 0) X(unclipped, char, 0) \
    X(clipped, char, 0) X(torque_low, char, 0) X(torque_high, char, 0) \
    /* of a simulated arm */ \
    X(qpos, char, 0) X(qvel, char, 0) X(forces, char, 0) X(ctrl, char, 0) \
    X(arm_q, int64_t, n) X(arm_v, int64_t, n) X(finger_q, char, 0) X(finger_v, char, 0)

/* Constants by name. */
#define CONSTANTS(X) \
    X(period) X(simulated) X(torque_mode) X(stall) X(pause) X(heartbeat_timeout) X(parent) \
    X(feedback_timeout) X(settling) X(every_status) X(every_sample) X(most_busy) \
    X(max_age) X(tolerance) X(takes) X(clamps) X(too_fast) X(overdue_after) X(grace) X(rate) X(max_rows) \
    X(response_stride) X(at_ticks) X(at_missed) X(at_accepted) X(at_worst) X(at_histogram) X(at_costliest) X(at_costs) \
    X(sudden) X(longest) X(gap) X(step) X(window) X(stretch) X(drift)

#define COUNT(...) +1
enum { N_BUFFERS = 0 BUFFERS(COUNT) };

typedef struct {
    PyObject_HEAD
    Py_buffer held[N_BUFFERS];
#define DECLARE(name, type, size) type *name;
    BUFFERS(DECLARE)
#define DECLARE_CONSTANT(name) double name;
    CONSTANTS(DECLARE_CONSTANT)
    int d, n, acquired, confirms, loops, computes, simulates, fingers;
    Py_ssize_t state_size, status_size, sample_size, samples, segment_size, max_basis, places;
    PyObject *signals, *state;
    Motion *motions[2];
    double *columns[2], *units[2];
} Core;

static int64_t monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void count(Histogram *histogram, uint64_t *counts, int64_t duration)
{
    histogram->total++;
    if (duration > histogram->worst) histogram->worst = duration;
    int bin = 0;
    if (duration >= 128) {
        int octave = 63 - __builtin_clzll((uint64_t)duration);
        bin = ((octave - 7) << 2) + (int)((duration >> (octave - 2)) & 3) + 1;
        if (bin >= BINS) bin = BINS - 1;
    }
    counts[bin]++;
}

/* ---- Slot.load, Follower.offer, Motion.bind and Guard.judge of a segment that may start ---- */

static uint64_t seen(const void *counter)
{
    return atomic_load_explicit((const _Atomic uint64_t *)counter, memory_order_acquire);
}

static int still(const void *counter, uint64_t stamp)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit((const _Atomic uint64_t *)counter, memory_order_relaxed) == stamp;
}

static uint64_t load_segment(Core *c)
{
    for (int i = 0; i < RETRIES; i++) {
        uint64_t stamp = seen(c->segment_counter);
        if (stamp & 1) continue;
        memcpy(c->segment_own, c->segment_shared, c->segment_size);
        if (still(c->segment_counter, stamp)) return stamp;
    }
    return 0;
}

static int all_finite(const double *values, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (!isfinite(values[i])) return 0;
    return 1;
}

static void bind(const Core *c, const Segment *s, double duration, double *C, double *units)
{
    const int d = c->d;
    const double *g = s->values, *origin = g + d, *w = origin + d;
    const int displaced = !isnan(origin[0]);
    for (int j = 0; j < d; j++, w += c->max_basis) {
        double y = c->setpoint[j], goal = displaced ? g[j] + (y - origin[j]) : g[j];
        C[j] = y;
        C[d + j] = c->setpoint[d + j] * duration;
        C[2 * d + j] = goal;
        for (int k = 0; k < s->n; k++)
            C[(3 + k) * d + j] = s->scaled ? w[k] * (goal - y) : w[k];
    }
    units[1] = 1.0 / duration;
    units[2] = 1.0 / (duration * duration);
}

/* Whether samples (K, 3, n) of the horizon are finite, inside the range, and no faster than they
   may be. */
static int harmless(
    const Core *c, const double *few, int K, int n, const double *C, const double *units)
{
    const int d = c->d;
    for (int j = 0; j < d; j++) {
        double q[3 * SAMPLES], high = -INFINITY, low = INFINITY, speed = 0.0;
        for (int i = 0; i < 3 * n; i++) q[i] = few[i] * C[j];
        for (int k = 1; k < K; k++) {
            const double *b = few + 3 * n * k, factor = C[k * d + j];
            for (int i = 0; i < 3 * n; i++) q[i] += b[i] * factor;
        }
        for (int i = 0; i < n; i++) {
            double y = q[i] * units[0], v = q[n + i] * units[1], a = q[2 * n + i] * units[2];
            if (j >= c->n && (y > c->upper[j] || y < c->lower[j])) continue;
            if (!(isfinite(y) && isfinite(v) && isfinite(a))) return 0;
            high = y > high ? y : high;
            low = y < low ? y : low;
            speed = fabs(v) > speed ? fabs(v) : speed;
        }
        if (j < c->n && (high - c->limit_high[j] > c->tolerance ||
                         c->limit_low[j] - low > c->tolerance))
            return 0;
        if (j < c->n && !c->clamps && !(speed / c->max_velocity[j] <= c->too_fast)) return 0;
    }
    return 1;
}

/* Take the newest segment over; 0 if Python must decide about it. */
static int take_segment(Core *c, double now)
{
    Follower *f = c->follower;
    const Segment *s = (const Segment *)c->segment_own;
    if (!c->takes || !f->enabled || (f->phase != FOLLOWING && f->phase != WAITING)) return 0;
    uint64_t stamp = load_segment(c);
    if (!stamp) return 1; /* it is being written: at the next tick */
    if (!(now - s->stamp <= c->max_age) || s->stamp < f->ignore_before) return 0;
    if (s->slot < 0 || s->slot >= c->places || s->n < 1 || s->n > c->max_basis) return 0;
    const char *place = c->responses + s->slot * (Py_ssize_t)c->response_stride;
    uint64_t mark = seen(place);
    Head head = *(const Head *)(place + 64);
    double *data = (double *)(place + 128), width = 3 + s->n, room = (c->response_stride - 128) / 8;
    if (mark & 1 || head.generation != (double)s->generation || head.width != width) return 0;
    if (!(head.samples >= 1 && head.samples <= SAMPLES && head.length >= 1 &&
          (head.samples + head.length) * 3 * width <= room))
        return 0;
    if (!all_finite(s->values, c->d) || !all_finite(s->values + 2 * c->d, c->d * c->max_basis))
        return 0;
    int next = 1 - (int)f->current, samples = (int)head.samples;
    double *C = c->columns[next], *units = c->units[next];
    bind(c, s, head.duration, C, units);
    if (!harmless(c, data, (int)width, samples, C, units) || !still(place, mark)) return 0;
    Motion *m = c->motions[next];
    *m = (Motion){m->version + 1, s->slot, s->generation, (int64_t)mark,
                  (int64_t)head.length, (int64_t)width, 3 * samples * (int64_t)width};
    f->current = next;
    f->index = f->admitted = 0;
    f->stretch = 1.0;
    f->due = (int64_t)ceil((head.duration + c->overdue_after) * c->rate);
    int64_t past = (int64_t)floor((head.duration + c->grace) * c->rate + 1e-6);
    int64_t rows = m->length < (int64_t)c->max_rows ? m->length : (int64_t)c->max_rows;
    f->end = past < rows - 1 ? past : rows - 1;
    f->phase = FOLLOWING;
    f->sequence = s->sequence;
    f->accepted++;
    f->refused_before = f->refused;
    c->segment->stamp = (int64_t)stamp;
    return 1;
}

/* ---- the loop's own checks, Recovery.check_pause to Streamer._waits ---- */

static int usual(Core *c, int64_t began)
{
    if (!c->simulated) {
        double pause = (double)(began - c->turn->previous);
        if (pause > c->stall || pause > c->pause) return 0;
        struct timespec t;
        clock_gettime(CLOCK_BOOTTIME, &t);
        int64_t suspended = t.tv_sec * 1000000000LL + t.tv_nsec - monotonic();
        if ((double)(suspended - c->recovery->suspended) > c->stall) return 0;
    }
    if (PyList_GET_SIZE(c->signals) || getppid() != (pid_t)c->parent) return 0;
    int64_t beat = *(volatile int64_t *)c->words;
    if (!beat || c->turn->parent_silent) return 0;
    if ((double)(began - beat) * 1e-9 > c->heartbeat_timeout) return 0;
    if (*(volatile uint64_t *)c->request_head != (uint64_t)c->turn->request) return 0;
    if (seen(c->segment_counter) != (uint64_t)c->segment->stamp &&
        !take_segment(c, (double)began * 1e-9))
        return 0;
    const Follower *f = c->follower;
    return !(c->simulated && f->phase == FOLLOWING && f->index >= f->due);
}

static void begin(Core *c, int64_t began)
{
    c->turn->previous = c->turn->waits_since = began;
    ((volatile int64_t *)c->words)[1] = began;
}

/* ---- Follower.tick with Motion.compute and Limiter.admits ---- */

static int admitted(const Core *c, const double *w)
{
    const int d = c->d;
    const double T = c->period, *lo = c->limit_low, *hi = c->limit_high;
    for (int j = 0; j < d; j++) {
        double y = w[j], v = w[d + j], a = w[2 * d + j];
        double y0 = c->setpoint[j], v0 = c->setpoint[d + j], brake = fabs(v) * v * c->half_over_a[j];
        double slack = 1e-14 * (fabs(y) + fabs(y0) + (fabs(v) + fabs(v0)) * T + fabs(brake));
#define WITHIN(row, q, s) ((q) <= hi[(row) * d + j] - (s) && (q) >= lo[(row) * d + j] + (s))
        if (!(WITHIN(0, y, 0.0) && WITHIN(2, v, 0.0) && WITHIN(5, a, 0.0) &&
              WITHIN(1, y + v * (T / 2) + brake, slack) &&
              WITHIN(3, y - y0 - v * (T / 4) - v0 * (3 * T / 4), slack) &&
              WITHIN(4, y - y0 - v * (3 * T / 4) - v0 * (T / 4), slack) &&
              WITHIN(6, y - y0 - v * (T / 2) - v0 * (T / 2), slack)))
            return 0;
    }
    return 1;
}

/* Write the next setpoint (3, dof) to w, if the segment goes on and the limits admit it. */
static int next_setpoint(const Core *c, double *w)
{
    const Follower *f = c->follower;
    const int d = c->d;
    if (f->phase == HOLDING || f->phase == WAITING) {
        memcpy(w, c->setpoint, 3 * d * sizeof *w);
        return 1;
    }
    const Motion *m = c->motions[f->current];
    int64_t index = f->index + 1;
    if (f->phase != FOLLOWING || f->stretch != 1.0 || index > f->end || index >= m->length) return 0;
    const char *place = c->responses + m->slot * (Py_ssize_t)c->response_stride;
    const int K = (int)m->width;
    const double *b = (const double *)(place + 128) + m->skipped + index * 3 * K;
    const double *C = c->columns[f->current], *units = c->units[f->current];
    for (int o = 0; o < 3; o++, b += K) {
        double *out = w + o * d;
        for (int j = 0; j < d; j++) out[j] = b[0] * C[j];
        for (int k = 1; k < K; k++)
            for (int j = 0; j < d; j++) out[j] += b[k] * C[k * d + j];
        for (int j = 0; j < d; j++) out[j] *= units[o];
    }
    if (!still(place, (uint64_t)m->mark)) return 0;
    for (int j = c->n; j < d; j++)
        if (w[j] > c->upper[j] || w[j] < c->lower[j]) {
            w[j] = w[j] > c->upper[j] ? c->upper[j] : c->lower[j];
            w[d + j] = w[2 * d + j] = 0.0;
        }
    return admitted(c, w);
}

static void take_setpoint(Core *c, const double *w)
{
    if (c->follower->phase != FOLLOWING) return;
    memcpy(c->setpoint, w, 3 * c->d * sizeof *w);
    c->follower->index++;
    c->follower->admitted = 0;
}

/* ---- Guard.command ---- */

static int commandable(const Core *c, const double *position)
{
    const int d = c->d;
    const double *lo = c->command_low, *hi = c->command_high;
    for (int j = 0; j < d; j++)
        if (!(position[j] <= hi[j] && position[j] >= lo[j])) return 0;
    if (!c->torque_mode) return 1;
    for (int j = 0; j < c->n; j++) {
        double torque = c->command_torque[j];
        double change = c->guard->torque_known ? torque - c->last_torque[j] : 0.0;
        if (!(torque <= hi[d + j] && torque >= lo[d + j] && change <= hi[2 * d + j] &&
              change >= lo[2 * d + j]))
            return 0;
    }
    return 1;
}

/* ---- Confirmer.confirm, of readings that pass in every respect ---- */

typedef struct { double raw[3 * MAX_DOF], integral[MAX_DOF], interval;
                 int restart, add; } Confirmed;

static int confirmable(
    const Core *c, const double *position, const double *velocity, const double *effort,
    double at, double now, Confirmed *out)
{
    const int d = c->d, n = c->n;
    const Confirmer *f = c->confirmer;
    if (!f->passed || !(f->seen < at && at <= now)) return 0;
    double *raw = out->raw, unseen = at - f->finite_at;
    unseen = unseen > 0.0 ? unseen : 0.0;
    unseen = unseen < c->sudden ? unseen : c->sudden;
    for (int j = 0; j < d; j++) {
        raw[j] = position[j] + c->turns[j];
        raw[d + j] = velocity[j];
        raw[2 * d + j] = effort[j];
    }
    for (int j = 0; j < 3 * d; j++) {
        double bound = c->rates[j] * unseen;
        bound += c->allowed[j];
        if (!(fabs(raw[j] - c->base[j]) <= bound)) return 0;
    }
    double elapsed = at - c->travel->time, interval = c->travel->interval;
    double bound = c->gap * (interval > c->step ? interval : c->step);
    out->restart = out->add = 0;
    if (elapsed < c->step) return 1;
    out->restart = elapsed > (bound < c->longest ? bound : c->longest);
    out->add = !out->restart;
    interval = elapsed > 0.5 * interval ? elapsed : 0.5 * interval;
    out->interval = interval < c->longest ? interval : c->longest;
    if (out->restart) return 1;
    for (int j = 0; j < n; j++) {
        double way = raw[d + j] + c->last_velocity[j];
        way *= 0.5 * elapsed;
        out->integral[j] = c->integral[j] + way;
    }
    if (!(at - c->travel->began >= c->window)) return 1;
    out->restart = 1;
    for (int j = 0; j < n; j++) {
        double moved = raw[j] - c->start[j], less = moved / c->stretch, more = moved * c->stretch;
        double low = (less < more ? less : more) - c->drift;
        double high = (less < more ? more : less) + c->drift;
        if (!(out->integral[j] >= low && out->integral[j] <= high)) return 0;
    }
    return 1;
}

static int take_reading(Core *c, const Confirmed *r, double at)
{
    const int d = c->d, n = c->n;
    PyObject *time = PyFloat_FromDouble(at);
    if (!time || PyObject_SetAttrString(c->state, "time", time)) {
        Py_XDECREF(time);
        return -1;
    }
    Py_DECREF(time);
    c->confirmer->seen = c->confirmer->finite_at = c->confirmer->gripper_time = at;
    memcpy(c->now, r->raw, 3 * d * sizeof(double));
    memcpy(c->base, r->raw, 2 * d * sizeof(double));
    if (r->restart || r->add) {
        memcpy(c->last_velocity, r->raw + d, n * sizeof(double));
        c->travel->time = at;
        c->travel->interval = r->interval;
    }
    if (r->restart) {
        memcpy(c->start, r->raw, n * sizeof(double));
        memset(c->integral, 0, n * sizeof(double));
        c->travel->began = at;
    } else if (r->add) {
        memcpy(c->integral, r->integral, n * sizeof(double));
    }
    return 0;
}

/* ---- InverseDynamics.torque, without the inverse dynamics ---- */

static void demand(const Core *c)
{
    const int d = c->d;
    double *a = (double *)c->demanded;
    for (int j = 0; j < c->n; j++) {
        double rate = (c->setpoint[d + j] - c->velocity[j]) * c->gains[1];
        a[j] = (c->setpoint[j] - c->position[j]) * c->gains[0];
        a[j] += rate;
        a[j] += c->setpoint[2 * d + j];
    }
}

static int take_torque(Core *c, const double *tau)
{
    const double *low = (double *)c->torque_low, *high = (double *)c->torque_high;
    double *wanted = (double *)c->unclipped, *given = (double *)c->clipped;
    for (int j = 0; j < c->n; j++) {
        double torque = ((double *)c->viscous)[j] * c->velocity[j];
        torque += tau[j];
        if (!isfinite(torque)) return 0;
        wanted[j] = torque;
        torque = torque < high[j] ? torque : high[j];
        given[j] = torque > low[j] ? torque : low[j];
    }
    memcpy(c->command_torque, given, c->n * sizeof(double));
    memcpy(c->command_position, c->setpoint, c->d * sizeof(double));
    memcpy(c->command_velocity, c->setpoint + c->d, c->d * sizeof(double));
    return 1;
}

/* ---- MujocoArm.read and MujocoArm.write ---- */

static void gather(
    const Core *c, double *out, const char *state, const int64_t *arm, const char *fingers)
{
    const double *values = (const double *)state;
    double total = 0.0;
    for (int j = 0; j < c->n; j++) out[j] = values[arm[j]];
    if (c->d == c->n) return;
    for (int j = 0; j < c->fingers; j++) total += values[((const int64_t *)fingers)[j]];
    out[c->n] = total / c->fingers;
}

static int actuate(Core *c)
{
    double *ctrl = (double *)c->ctrl, grip = c->d > c->n ? c->command_position[c->n] : 0.0;
    for (int j = 0; j < c->n; j++)
        if (!(fabs(c->command_torque[j]) < 1e100)) return 0;
    if (!isfinite(grip)) return 0;
    memcpy(ctrl, c->command_torque, c->n * sizeof *ctrl);
    for (int j = 0; j < c->fingers; j++) ctrl[c->n + j] = grip;
    return 1;
}

/* ---- Guard.measured ---- */

static int tracked(
    const Core *c, const double *y, const double *position, const double *velocity, double age)
{
    if (!(age <= c->feedback_timeout)) return 0;
    for (int j = 0; j < c->n; j++)
        if (!(fabs(y[j] - position[j]) <= c->measured_high[j] &&
              fabs(velocity[j]) <= c->measured_high[c->n + j]))
            return 0;
    return 1;
}

/* ---- Streamer._publish_all ---- */

static void store(uint64_t *counter, char *shared, const char *own, size_t size)
{
    _Atomic uint64_t *stamp = (_Atomic uint64_t *)counter;
    uint64_t odd = atomic_load_explicit(stamp, memory_order_relaxed) | 1;
    atomic_store_explicit(stamp, odd, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    memcpy(shared, own, size);
    atomic_store_explicit(stamp, odd + 1, memory_order_release);
}

static int status_due(const Core *c)
{
    return c->clock->ticks % (int64_t)c->every_status == 0;
}

static void publish(Core *c, double now, double arm_time)
{
    const size_t vector = c->d * sizeof(double);
    const Clock *clock = c->clock;
    if (status_due(c)) {
        char *status = c->status_own;
        double worst = c->lateness->worst * 1e-9, costliest = c->cost->worst * 1e-9;
        memcpy(status + (int)c->at_ticks, &clock->ticks, 8);
        memcpy(status + (int)c->at_missed, &clock->missed, 8);
        memcpy(status + (int)c->at_accepted, &c->follower->accepted, 8);
        memcpy(status + (int)c->at_worst, &worst, 8);
        memcpy(status + (int)c->at_histogram, c->lateness_counts, 8 * BINS);
        memcpy(status + (int)c->at_costliest, &costliest, 8);
        memcpy(status + (int)c->at_costs, c->cost_counts, 8 * BINS);
        store(c->status_counter, c->status_shared, status, c->status_size);
    }
    if (c->follower->phase == FOLLOWING) c->turn->settles_until = now + c->settling;
    char *head = c->state_own, *own = c->state_own + HEAD;
    memcpy(head, &now, 8);
    memcpy(head + 8, &arm_time, 8);
    memcpy(head + 16, &clock->ticks, 8);
    memcpy(head + 24, &c->follower->sequence, 8);
    memcpy(head + 32, &c->follower->phase, 8);
    memcpy(own, c->position, vector);
    memcpy(own + vector, c->velocity, vector);
    memcpy(own + 2 * vector, c->effort, vector);
    memcpy(own + 3 * vector, c->setpoint, 3 * vector);
    store(c->state_counter, c->state_shared, c->state_own, c->state_size);
    if (clock->ticks % (int64_t)c->every_sample == 0) {
        _Atomic uint64_t *place = (_Atomic uint64_t *)c->sample_head;
        uint64_t at = atomic_load_explicit(place, memory_order_relaxed);
        char *sample = c->sample_shared + (at % c->samples) * c->sample_size;
        memcpy(sample, head, HEAD);
        memcpy(sample + HEAD, own + 3 * vector, 3 * vector);
        memcpy(sample + HEAD + 3 * vector, own, 2 * vector);
        memcpy(sample + HEAD + 5 * vector, c->command_torque, vector);
        atomic_store_explicit(place, at + 1, memory_order_release);
    }
}

/* Whether a tick may be published here: no status that Python has changed, no arm coming to rest. */
static int publishable(const Core *c, double now)
{
    int64_t phase = c->follower->phase;
    if (c->turn->changed && status_due(c)) return 0;
    if (phase == HOLDING || phase == WAITING) return now >= c->turn->settles_until;
    return phase == FOLLOWING;
}

/* ---- methods ---- */

#define UNLESS_RELEASED(core) if (!(core)->acquired) Py_RETURN_FALSE

static PyObject *core_usual(Core *c, PyObject *number)
{
    UNLESS_RELEASED(c);
    int64_t began = PyLong_AsLongLong(number);
    if (began == -1 && PyErr_Occurred()) return NULL;
    if (!usual(c, began)) Py_RETURN_FALSE;
    begin(c, began);
    Py_RETURN_TRUE;
}

static PyObject *core_advance(Core *c, PyObject *Py_UNUSED(ignored))
{
    UNLESS_RELEASED(c);
    double w[3 * MAX_DOF];
    if (!next_setpoint(c, w)) Py_RETURN_FALSE;
    take_setpoint(c, w);
    Py_RETURN_TRUE;
}

static PyObject *core_command(Core *c, PyObject *Py_UNUSED(ignored))
{
    UNLESS_RELEASED(c);
    if (!commandable(c, c->command_position)) Py_RETURN_FALSE;
    if (c->torque_mode) {
        memcpy(c->last_torque, c->command_torque, c->n * sizeof(double));
        c->guard->torque_known = 1;
    }
    Py_RETURN_TRUE;
}

static PyObject *core_confirm(Core *c, PyObject *const *args, Py_ssize_t count)
{
    UNLESS_RELEASED(c);
    if (count != 4) return PyErr_Format(PyExc_TypeError, "confirm takes 3 arrays and a time");
    double at = PyFloat_AsDouble(args[3]);
    if (at == -1.0 && PyErr_Occurred()) return NULL;
    if (!c->confirms) Py_RETURN_FALSE;
    Py_buffer vectors[3];
    for (int i = 0; i < 3; i++) {
        if (PyObject_GetBuffer(args[i], vectors + i, PyBUF_C_CONTIGUOUS)) {
            while (i--) PyBuffer_Release(vectors + i);
            return NULL;
        }
    }
    Confirmed reading;
    int whole = 1, result;
    for (int i = 0; i < 3; i++) whole &= vectors[i].len == (Py_ssize_t)(c->d * sizeof(double));
    result = whole && confirmable(c, vectors[0].buf, vectors[1].buf, vectors[2].buf, at,
                                  monotonic() / 1e9, &reading);
    for (int i = 0; i < 3; i++) PyBuffer_Release(vectors + i);
    if (result && take_reading(c, &reading, at)) return NULL;
    return PyBool_FromLong(result);
}

static PyObject *core_demand(Core *c, PyObject *Py_UNUSED(ignored))
{
    if (!c->acquired || !c->computes) Py_RETURN_FALSE;
    demand(c);
    Py_RETURN_TRUE;
}

static PyObject *core_torque(Core *c, PyObject *tau)
{
    if (!c->acquired || !c->computes) Py_RETURN_FALSE;
    Py_buffer view;
    if (PyObject_GetBuffer(tau, &view, PyBUF_C_CONTIGUOUS)) return NULL;
    int taken = view.len == c->n * (Py_ssize_t)sizeof(double) && take_torque(c, view.buf);
    PyBuffer_Release(&view);
    return PyBool_FromLong(taken);
}

static PyObject *core_actuate(Core *c, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(c->acquired && c->simulates && c->torque_mode && actuate(c));
}

static PyObject *core_sense(Core *c, PyObject *Py_UNUSED(ignored))
{
    if (!c->acquired || !c->simulates) Py_RETURN_FALSE;
    gather(c, c->position, c->qpos, c->arm_q, c->finger_q);
    gather(c, c->velocity, c->qvel, c->arm_v, c->finger_v);
    gather(c, c->effort, c->forces, c->arm_v, c->finger_v);
    Py_RETURN_TRUE;
}

static PyObject *core_tracked(Core *c, PyObject *number)
{
    UNLESS_RELEASED(c);
    double age = PyFloat_AsDouble(number);
    if (age == -1.0 && PyErr_Occurred()) return NULL;
    return PyBool_FromLong(tracked(c, c->setpoint, c->position, c->velocity, age));
}

static PyObject *core_publish(Core *c, PyObject *const *args, Py_ssize_t count)
{
    UNLESS_RELEASED(c);
    if (count != 2) return PyErr_Format(PyExc_TypeError, "publish takes 2 times");
    double now = PyFloat_AsDouble(args[0]), arm_time = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred()) return NULL;
    if (!publishable(c, now)) Py_RETURN_FALSE;
    publish(c, now, arm_time);
    Py_RETURN_TRUE;
}

/* All of a tick, for an arm that is always at its last command. */
static PyObject *core_tick(Core *c, PyObject *Py_UNUSED(ignored))
{
    static const double zeros[MAX_DOF];
    const int d = c->d;
    double w[3 * MAX_DOF];
    Confirmed reading;
    int64_t began = monotonic();
    if (!c->acquired || !c->loops || !usual(c, began) || !next_setpoint(c, w) || !commandable(c, w))
        Py_RETURN_FALSE;
    double at = monotonic() / 1e9;
    if (!confirmable(c, w, w + d, zeros, at, at, &reading)) Py_RETURN_FALSE;
    double now = monotonic() * 1e-9;
    if (!tracked(c, w, reading.raw, reading.raw + d, now - at) || !publishable(c, now))
        Py_RETURN_FALSE;
    if (take_reading(c, &reading, at)) return NULL;
    begin(c, began);
    take_setpoint(c, w);
    const size_t vector = d * sizeof(double);
    memcpy(c->command_position, w, vector);
    memcpy(c->command_velocity, w + d, vector);
    memcpy(c->loopback_position, w, vector);
    memcpy(c->loopback_velocity, w + d, vector);
    publish(c, now, at);
    count(c->cost, c->cost_counts, monotonic() - began);
    Py_RETURN_TRUE;
}

/* Clock.wait */
static PyObject *core_wait(Core *c, PyObject *Py_UNUSED(ignored))
{
    UNLESS_RELEASED(c);
    Clock *k = c->clock;
    int64_t now = monotonic();
    k->busy += ((double)(now - k->returned) - k->busy) * 0.02;
    double longest = c->most_busy * k->period_ns - k->busy;
    longest = longest < k->max_spin ? longest : k->max_spin;
    longest = longest > 0.0 ? longest : 0.0;
    double ahead = (double)(k->deadline - now) - (k->spin < longest ? k->spin : longest);
    if (ahead > 0.0) {
        int64_t until = now + (int64_t)ahead, woken;
        struct timespec t = {until / 1000000000LL, until % 1000000000LL};
        int status;
        do {
            Py_BEGIN_ALLOW_THREADS
            status = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
            Py_END_ALLOW_THREADS
            if (status == EINTR && PyErr_CheckSignals()) return NULL;
        } while (status == EINTR);
        woken = monotonic();
        double over = 2.0 * ((double)(woken - now) - ahead);
        k->spin += ((over < longest ? over : longest) - k->spin) * 0.02;
        now = woken;
    }
    while (now < k->deadline) now = monotonic();
    int64_t late = now - k->deadline, skipped = (int64_t)((double)late / k->period_ns);
    count(c->lateness, c->lateness_counts, late);
    k->ticks++;
    k->missed += skipped;
    k->count += skipped + 1;
    k->deadline = k->origin + llrint((double)k->count * k->period_ns);
    k->returned = now;
    return PyLong_FromLongLong(skipped);
}

static PyObject *core_release(Core *c, PyObject *Py_UNUSED(ignored))
{
    while (c->acquired > 0) {
        Py_buffer *view = &c->held[--c->acquired];
        if (view->obj) PyBuffer_Release(view);
    }
    c->loops = c->confirms = c->computes = c->simulates = 0;
    Py_CLEAR(c->signals);
    Py_CLEAR(c->state);
    Py_RETURN_NONE;
}

/* The i-th buffer by its name; absent ones stay NULL. */
static int acquire(Core *c, PyObject *buffers, const char *name, int i, Py_ssize_t size)
{
    Py_buffer *view = &c->held[i];
    memset(view, 0, sizeof *view);
    c->acquired = i + 1;
    PyObject *found = PyDict_GetItemString(buffers, name);
    if (!found) return 0;
    if (PyObject_GetBuffer(found, view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)) return -1;
    if (size && view->len != size) {
        PyErr_Format(PyExc_ValueError, "%s has %zd bytes, expected %zd", name, view->len, size);
        return -1;
    }
    return 0;
}

static int core_init(Core *c, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *buffers, *constants, *signals, *state;
    int d, n;
    Py_ssize_t sample_size;
    if (c->acquired) return PyErr_Format(PyExc_TypeError, "it is initialised once"), -1;
    if (!PyArg_ParseTuple(args, "iinO!O!O!O", &d, &n, &sample_size, &PyDict_Type, &buffers,
                          &PyDict_Type, &constants, &PyList_Type, &signals, &state))
        return -1;
    if (!(0 < n && n <= d && d <= MAX_DOF && sample_size == (Py_ssize_t)(HEAD + 48 * d)))
        return PyErr_Format(PyExc_ValueError, "%d joints, at most %d", d, MAX_DOF), -1;
    c->d = d;
    c->n = n;
    c->sample_size = sample_size;
    c->signals = Py_NewRef(signals);
    c->state = Py_NewRef(state);
    int i = 0, optional = 0, vectors = 0;
#define SIZE(type, size) \
    ((Py_ssize_t)((size) != 0 ? (size) * 8 : sizeof(type) > 1 ? (int)sizeof(type) : 0))
#define ACQUIRE(name_, type, size) \
    if (acquire(c, buffers, #name_, i, SIZE(type, size))) return -1; \
    c->name_ = c->held[i++].buf;
    BUFFERS(ACQUIRE)
#define READ(name_) { \
    PyObject *value = PyDict_GetItemString(constants, #name_); \
    c->name_ = value ? PyFloat_AsDouble(value) : NAN; \
    if (PyErr_Occurred()) return -1; }
    CONSTANTS(READ)
    c->confirms = c->confirmer && c->travel && c->turns && c->base && c->now && c->allowed &&
                  c->rates && c->start && c->last_velocity && c->integral;
    c->loops = c->confirms && c->loopback_position && c->loopback_velocity;
    c->computes = c->torque_mode && c->gains;
    c->simulates = c->qpos && c->qvel && c->forces && c->ctrl && c->arm_q && c->arm_v &&
                   c->finger_q && c->finger_v;
    for (int k = 0; k < N_BUFFERS; k++) {
        const char *name = (const char *[]){
#define NAME(name_, type, size) #name_,
            BUFFERS(NAME)}[k];
        if (!strcmp(name, "confirmer")) optional = 1;
        if (!strcmp(name, "finger_q")) c->fingers = (int)(c->held[k].len / 8);
        if (!strcmp(name, "gains")) vectors = 1;
        if (!strcmp(name, "qpos")) vectors = 0;
        if (vectors && strcmp(name, "gains") && c->held[k].len != 8 * n) c->computes = 0;
        if (optional) continue;
        if (!c->held[k].obj) return PyErr_Format(PyExc_ValueError, "%s is missing", name), -1;
        if (!strcmp(name, "state_own")) c->state_size = c->held[k].len;
        if (!strcmp(name, "status_own")) c->status_size = c->held[k].len;
        if (!strcmp(name, "sample_shared")) c->samples = c->held[k].len / sample_size;
        if (!strcmp(name, "segment_own")) c->segment_size = c->held[k].len;
        if (!strncmp(name, "columns_", 8)) c->max_basis = c->held[k].len / (8 * d) - 3;
        if (!strcmp(name, "responses")) c->places = c->held[k].len / (Py_ssize_t)c->response_stride;
    }
    int reaches = c->fingers > 0 || d == n;
    for (int k = 0; k < N_BUFFERS && c->simulates; k++)
        if (c->held[k].buf == (void *)c->ctrl) reaches &= c->held[k].len >= 8 * (n + c->fingers);
    c->simulates &= reaches;
    if (c->segment_size != (Py_ssize_t)sizeof(Segment) + 8 * d * (2 + c->max_basis))
        return PyErr_Format(PyExc_ValueError, "segments and columns do not fit each other"), -1;
    for (int k = 0; k < 2; k++) {
        c->motions[k] = k ? c->motion_1 : c->motion_0;
        c->columns[k] = (double *)(k ? c->columns_1 : c->columns_0);
        c->units[k] = k ? c->units_1 : c->units_0;
    }
    return 0;
}

static void core_dealloc(Core *c)
{
    Py_XDECREF(core_release(c, NULL));
    Py_TYPE(c)->tp_free((PyObject *)c);
}

/* A loop of nothing but its clock, against which the streamer is measured: periodic(period [ns],
   ticks, spin [ns], work [ns]) -> (missed, worst [ns], counts of lateness). */
static PyObject *periodic(PyObject *Py_UNUSED(self), PyObject *args)
{
    long long period, ticks, spin, work;
    if (!PyArg_ParseTuple(args, "LLLL", &period, &ticks, &spin, &work)) return NULL;
    Histogram late = {0, 0};
    uint64_t counts[BINS] = {0};
    int64_t missed = 0, origin = monotonic(), deadline = origin;
    for (long long i = 0; i < ticks; i++) {
        deadline += period;
        int64_t until = deadline - spin, now;
        struct timespec t = {until / 1000000000LL, until % 1000000000LL};
        if (monotonic() < until) {
            Py_BEGIN_ALLOW_THREADS
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
            Py_END_ALLOW_THREADS
        }
        while ((now = monotonic()) < deadline) {}
        int64_t skipped = (now - deadline) / period;
        count(&late, counts, now - deadline);
        missed += skipped;
        i += skipped;
        deadline += skipped * period;
        while (monotonic() < now + work) {}
        if (PyErr_CheckSignals()) return NULL;
    }
    PyObject *bins = PyTuple_New(BINS);
    for (int b = 0; bins && b < BINS; b++)
        PyTuple_SET_ITEM(bins, b, PyLong_FromUnsignedLongLong(counts[b]));
    return bins ? Py_BuildValue("LLN", (long long)missed, (long long)late.worst, bins) : NULL;
}

static PyMethodDef functions[] = {
    {"periodic", periodic, METH_VARARGS, "A loop of nothing but its clock."}, {NULL, NULL, 0, NULL}};

static PyMethodDef methods[] = {
    {"wait", (PyCFunction)core_wait, METH_NOARGS, "Clock.wait"},
    {"tick", (PyCFunction)core_tick, METH_NOARGS, "Do a whole tick, if nothing is unusual."},
    {"usual", (PyCFunction)core_usual, METH_O, "Begin a tick, if nothing is unusual."},
    {"advance", (PyCFunction)core_advance, METH_NOARGS, "Follower.tick"},
    {"command", (PyCFunction)core_command, METH_NOARGS, "Guard.command"},
    {"confirm", (PyCFunction)(void (*)(void))core_confirm, METH_FASTCALL, "Confirmer.confirm"},
    {"demand", (PyCFunction)core_demand, METH_NOARGS, "InverseDynamics.torque, its first half."},
    {"torque", (PyCFunction)core_torque, METH_O, "InverseDynamics.torque, its second half."},
    {"actuate", (PyCFunction)core_actuate, METH_NOARGS, "MujocoArm.write"},
    {"sense", (PyCFunction)core_sense, METH_NOARGS, "MujocoArm.read"},
    {"tracked", (PyCFunction)core_tracked, METH_O, "Guard.measured"},
    {"publish", (PyCFunction)(void (*)(void))core_publish, METH_FASTCALL, "Publish a tick."},
    {"release", (PyCFunction)core_release, METH_NOARGS, "Release all memory; then do nothing."},
    {NULL, NULL, 0, NULL}};

static PyTypeObject core_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "ndp_ros.streaming._core.Core",
    .tp_basicsize = sizeof(Core),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "The body of a tick when nothing is unusual.",
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)core_init,
    .tp_dealloc = (destructor)core_dealloc,
    .tp_methods = methods};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_core", .m_size = -1, .m_methods = functions};

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *m;
    if (PyType_Ready(&core_type) || !(m = PyModule_Create(&module))) return NULL;
    if (PyModule_AddObjectRef(m, "Core", (PyObject *)&core_type)) {
        Py_DECREF(m);
        return NULL;
    }
    /* The checksum of this file. */
    if (PyModule_AddObject(m, "SOURCE", PyLong_FromUnsignedLong(SOURCE))) {
        Py_DECREF(m);
        return NULL;
    }
    return m;
}
