// sentence: an error for people: one sentence, malloc'ed, that the caller of a function frees.
#ifndef OFPROTO_SENTENCE_H
#define OFPROTO_SENTENCE_H

// Sets *error, unless there is a sentence already: the first one names the cause.
void sentence_set(char **error, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// The same, for a function that fails: returns rc.
int sentence_fail(int rc, char **error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
