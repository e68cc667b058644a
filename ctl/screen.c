// screen: see screen.h.
#include "screen.h"

#include <curses.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static SCREEN *terminal;

bool screen_open(void)
{
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return false;
	setlocale(LC_CTYPE, "");
	terminal = newterm(NULL, stdout, stdin);
	if (!terminal)
		return false;
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	curs_set(0);
	return true;
}

void screen_close(void)
{
	if (!terminal)
		return;
	endwin();
	delscreen(terminal);
	terminal = NULL;
}

// One line of the text, cut at the screen's edge. Returns what is behind it.
static const char *draw_line(int y, const char *text, attr_t how)
{
	size_t n = strcspn(text, "\n");

	move(y, 0);
	clrtoeol();
	attrset(how);
	if (n)
		addnstr(text, (int)n < COLS * 4 ? (int)n : COLS * 4);
	attrset(A_NORMAL);
	return text + n + (text[n] == '\n');
}

int screen_draw(const char *head, const char *table, int first)
{
	int y = 0, rest;

	erase();
	while (*head && y < LINES)
		head = draw_line(y++, head, A_NORMAL);
	if (*table && y < LINES)
		table = draw_line(y++, table, A_REVERSE);
	rest = LINES - y;
	for (; first > 0 && *table; first--) {
		table += strcspn(table, "\n");
		table += *table == '\n';
	}
	while (*table && y < LINES)
		table = draw_line(y++, table, A_NORMAL);
	refresh();
	return rest;
}

int screen_key(int ms)
{
	timeout(ms);
	int key = getch();

	switch (key) {
	case ERR:
		return SCREEN_NOTHING;
	case KEY_UP:
		return SCREEN_UP;
	case KEY_DOWN:
		return SCREEN_DOWN;
	case KEY_PPAGE:
		return SCREEN_PAGE_UP;
	case KEY_NPAGE:
		return SCREEN_PAGE_DOWN;
	case KEY_RESIZE:
		return SCREEN_RESIZED;
	case 'L' & 0x1f: // as everywhere: draw all of it anew
		clearok(curscr, TRUE);
		return SCREEN_RESIZED;
	default:
		return key;
	}
}
