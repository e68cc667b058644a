// metrics_private: what metrics.c (the switch, workers, tables; where to listen) and metrics_port.c (ports) share.
#ifndef VSWITCH_METRICS_PRIVATE_H
#define VSWITCH_METRICS_PRIVATE_H

#include "config.h"
#include "metrics_table.h"

// The samples that follow are of this metric.
void metrics_family(struct om *, enum metric);
void metrics_write_ports(struct om *);
// After ports have their numbers: makes the labels of weir_port_info.
void metrics_label_ports(const struct config *);
void metrics_forget_ports(void);

#endif
