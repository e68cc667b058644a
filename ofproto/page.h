// page: a list that is too long for one answer, read a page at a time.
//
// A page goes on where the one before it ended. What is known between two pages is in the reader's hands, as a text (page_cursor()): the switch
// keeps nothing for a reader that goes away, and each page is a bounded piece of the main thread's time. The parts of a list, put behind each
// other, are one table, or one JSON array. A row that is there from the first page to the last is in the list once; one that comes or goes
// meanwhile may be in it or not.
//
//     static int list(struct page *p, int argc, const char *argv[], char **error)
//     {
//         listing_column(p->l, "mac", "MAC");
//         for (; p->at[0] < n; p->at[0]++) {
//             if (!page_look(p))
//                 return 1;
//             listing_row(p->l);
//             ...
//         }
//         return 0;
//     }
#ifndef OFPROTO_PAGE_H
#define OFPROTO_PAGE_H

#include "listing.h"

#define PAGE_ROWS 250   // rows of a page at most
#define PAGE_LOOKS 8192 // things that are looked at for a page at most

struct page {
	struct listing *l; // of this page
	uint64_t at[3];    // where to go on: the list's own business; zero: at its beginning
	uint64_t limit;    // rows that are still wanted
	unsigned looks;
	struct listing_shape shape; // of the parts before this one
};

// Adds the columns and then rows to p->l. Returns 1: there is more, from p->at on; 0: that was the end; -1: *error is a sentence (malloc'ed).
typedef int page_fn(struct page *p, int argc, const char *argv[], char **error);

void page_begin(struct page *); // the whole list, from its beginning
// One thing more is to be looked at. False: not on this page.
bool page_look(struct page *);
// The next part as text or JSON (the caller frees it). *end: there is none behind it. NULL: *error is set.
char *page_next(struct page *, page_fn *, int argc, const char *argv[], bool json, bool *end, char **error);

#define PAGE_CURSOR 640 // bytes of a cursor's text at most
void page_cursor(const struct page *, char text[PAGE_CURSOR]);
// False: this is no text of page_cursor().
bool page_resume(struct page *, const char *text);

#endif
