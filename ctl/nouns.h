// nouns: the functions behind the verbs that work on the database, and what they share.
#ifndef CTL_NOUNS_H
#define CTL_NOUNS_H

#include "database.h"

int network_add_run(struct context *);
int network_set_run(struct context *);
int network_del_run(struct context *);
int network_list_run(struct context *);
int network_show_run(struct context *);
int port_add_run(struct context *);
int port_set_run(struct context *);
int port_del_run(struct context *);
int port_list_run(struct context *);
int port_show_run(struct context *);
int port_mtu_run(struct context *);
int fdb_add_run(struct context *);
int fdb_del_run(struct context *);
int flow_add_run(struct context *);
int flow_del_run(struct context *);
int class_add_run(struct context *);
int class_set_run(struct context *);
int class_del_run(struct context *);
int class_show_run(struct context *);
int export_add_run(struct context *);
int export_del_run(struct context *);
int mirror_add_run(struct context *);
int mirror_set_run(struct context *);
int mirror_del_run(struct context *);
int mirror_list_run(struct context *);
int router_add_run(struct context *);
int router_set_run(struct context *);
int router_del_run(struct context *);
int router_list_run(struct context *);
int router_show_run(struct context *);
int router_port_add_run(struct context *);
int router_port_set_run(struct context *);
int router_port_del_run(struct context *);
int router_port_list_run(struct context *);
int router_port_show_run(struct context *);
int route_add_run(struct context *);
int route_del_run(struct context *);
int route_list_run(struct context *);
int policy_add_run(struct context *);
int policy_del_run(struct context *);
int policy_list_run(struct context *);
int host_set_run(struct context *);
int host_list_run(struct context *);
int host_show_run(struct context *);
int host_del_run(struct context *);
int config_set_run(struct context *);
int config_get_run(struct context *);
int config_del_run(struct context *);
int config_list_run(struct context *);

// NULL if there is none.
const struct weirrec_network *network_find(const struct ovsdb_idl *, const char *name);
const struct weirrec_router *router_find(const struct ovsdb_idl *, const char *name);
const struct weirrec_router_port *router_port_find(const struct ovsdb_idl *, const char *name);
// *port is NULL if there is none. -1 after fail() if there are several.
int port_find(struct context *, const char *name, const struct weirrec_port **port);
int name_check(struct context *, const char *noun, const char *name);

#endif
