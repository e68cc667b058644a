// notice: what a part of the pipeline has to say to an operator. It goes to the log, where there is one. Main thread.
#ifndef OFPROTO_NOTICE_H
#define OFPROTO_NOTICE_H

struct log_field {
	const char *key, *value; // a value of NULL: the field is left out
};

// Of vswitch/; NULL: nobody listens.
extern void (*notice_sink)(char level, const char *module, const struct log_field *, const char *sentence);
// level: 'w' or 'i'. module: of vswitch/log.h. fields: end with a NULL key.
void notice(char level, const char *module, const struct log_field *fields, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#endif
