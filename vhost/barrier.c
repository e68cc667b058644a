// barrier: waits until the library's event thread has finished what it is at.
//
// When a connection ends, the library closes its descriptor, tells us, and only then frees the device and forgets the connection
// (vhost_user_read_cb() in DPDK 22.11). To unregister the socket in between frees all of it twice, and however long one waits, a busy machine
// may not have run that thread. The library has no call that waits for it. But the thread serves one descriptor after the other, so it is
// given one more: a connection to a socket of our own. When it accepts that, it is through with what came before.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "port.h"

#define PATIENCE 5 // seconds; the thread may be waiting for a front-end's message, which takes it less than one

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER; // one barrier at a time
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t passed_one = PTHREAD_COND_INITIALIZER;
static uint64_t passed; // under lock
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static int new_connection(int vid)
{
	pthread_mutex_lock(&lock);
	passed++;
	pthread_cond_broadcast(&passed_one);
	pthread_mutex_unlock(&lock);
	return 0;
}

static int new_device(int vid)
{
	return -1; // nobody talks vhost-user here
}

static void destroy_device(int vid)
{
}

int vhost_barrier_start(void)
{
	static const struct rte_vhost_device_ops ops = {
		.new_connection = new_connection, .new_device = new_device, .destroy_device = destroy_device};
	const char *folder = getenv("RUNTIME_DIRECTORY");
	int n;

	if (address.sun_path[0])
		return 0;
	n = folder && strlen(folder) < 80 ? snprintf(address.sun_path, sizeof(address.sun_path), "%s/.vhost-barrier.sock", folder)
					  : snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/.vhost-barrier-%d.sock", getpid());
	unlink(address.sun_path);
	if (n < 0 || rte_vhost_driver_register(address.sun_path, 0) < 0 ||
	    rte_vhost_driver_callback_register(address.sun_path, &ops) < 0 || rte_vhost_driver_start(address.sun_path) < 0) {
		address.sun_path[0] = '\0';
		return -EIO;
	}
	return 0;
}

void vhost_barrier(void)
{
	struct timespec until;
	uint64_t before;
	int status = 0, s;

	pthread_mutex_lock(&turn);
	pthread_mutex_lock(&lock);
	before = passed;
	pthread_mutex_unlock(&lock);
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s >= 0 && connect(s, (const struct sockaddr *)&address, sizeof(address)) == 0) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += PATIENCE;
		pthread_mutex_lock(&lock);
		while (passed == before && !status)
			status = pthread_cond_timedwait(&passed_one, &lock, &until);
		pthread_mutex_unlock(&lock);
	}
	if (s >= 0)
		close(s);
	pthread_mutex_unlock(&turn);
}
