// screen: a terminal that top draws on. The only user of curses, whose names would clash with everybody's.
#ifndef CTL_SCREEN_H
#define CTL_SCREEN_H

#include <stdbool.h>

enum {
	SCREEN_NOTHING = -1, // no key within the time
	SCREEN_UP = 0x1000,
	SCREEN_DOWN,
	SCREEN_PAGE_UP,
	SCREEN_PAGE_DOWN,
	SCREEN_RESIZED,
};

// False: this is no terminal that can be drawn on.
bool screen_open(void);
void screen_close(void); // may be called at any time
// Draws `head`, then `table` from line `first` of its body on; its first line is a heading and stays. Returns the lines of the table's body that fit.
int screen_draw(const char *head, const char *table, int first);
// The next key, or what else happened, within so many milliseconds.
int screen_key(int ms);

#endif
