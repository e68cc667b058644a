// control_signals: lets Open vSwitch's library install its signal handlers once, and puts the process's own back.
#include "openvswitch.h"

#include "control_signals.h"

#include "fatal-signal.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

void control_keep_signals(void)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGALRM, SIGSEGV};
	enum {
		N = sizeof signals / sizeof *signals
	};
	static bool done;
	struct sigaction old[N];

	if (done)
		return;
	done = true;
	for (int i = 0; i < N; i++)
		sigaction(signals[i], NULL, &old[i]);
	fatal_signal_init();
	for (int i = 0; i < N; i++)
		sigaction(signals[i], &old[i], NULL);
	// The library writes to sockets whose other end may be gone, and expects an error then.
	struct sigaction pipe;
	sigaction(SIGPIPE, NULL, &pipe);
	if (pipe.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
}
