// sizes: sizes that several parts agree on.
#ifndef OFPROTO_SIZES_H
#define OFPROTO_SIZES_H

#define MAX_PORTS 4096    // port ids are 1..MAX_PORTS-1; 0: none
#define MAX_NETWORKS 4096 // network ids are 1..MAX_NETWORKS-1; 0: none
#define MAX_ROUTERS 1024   // router ids are 1..MAX_ROUTERS-1; 0: none
#define MAX_WORKERS 64
#define MAX_STAGES 64     // one bit each in flow.stages
#define MAX_REASONS 192   // drop reasons of all stages together; 0: not dropped
#define MAX_PROFILES 1024
#define BURST 32          // packets that one rx burst takes at most

#endif
