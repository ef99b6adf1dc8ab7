/* SPDX-License-Identifier: Apache-2.0 */
/* The reply shapes by name; see schema.h. */
#ifndef API_SHAPES_H
#define API_SHAPES_H

#include "api/schema.h"

extern const struct api_shape api_shape_pool;
extern const struct api_shape api_shape_disk;
extern const struct api_shape api_shape_counters;
extern const struct api_shape api_shape_volume;
extern const struct api_shape api_shape_snapshot;
extern const struct api_shape api_shape_diff;
extern const struct api_shape api_shape_run;
extern const struct api_shape api_shape_policy;
extern const struct api_shape api_shape_rule;
extern const struct api_shape api_shape_export;
extern const struct api_shape api_shape_session;
extern const struct api_shape api_shape_dropped;
extern const struct api_shape api_shape_block;
extern const struct api_shape api_shape_deleted;
extern const struct api_shape api_shape_listener;
extern const struct api_shape api_shape_status;
extern const struct api_shape api_shape_job;
extern const struct api_shape api_shape_event;
extern const struct api_shape api_shape_check;
extern const struct api_shape api_shape_finding;
extern const struct api_shape api_shape_error;

#endif
