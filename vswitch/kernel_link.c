// kernel_link: see kernel_link.h. rtnetlink(7).
#include "kernel_link.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STATS_HEAD offsetof(struct rtnl_link_stats64, multicast) // newer kernels have more

static int find_stats(const void *answer, ssize_t len, uint64_t *rx, uint64_t *tx)
{
	const struct nlmsghdr *h = answer;

	if (!NLMSG_OK(h, (size_t)len))
		return -EIO;
	if (h->nlmsg_type == NLMSG_ERROR)
		return ((const struct nlmsgerr *)NLMSG_DATA(h))->error;
	const char *at = (const char *)answer + NLMSG_SPACE(sizeof(struct ifinfomsg)), *end = (const char *)answer + h->nlmsg_len;
	for (struct rtattr a; end - at >= (ssize_t)sizeof a; at += RTA_ALIGN(a.rta_len)) {
		struct rtnl_link_stats64 s;

		memcpy(&a, at, sizeof a);
		if (a.rta_len < sizeof a || a.rta_len > end - at)
			break;
		if (a.rta_type != IFLA_STATS64 || a.rta_len < RTA_LENGTH(STATS_HEAD))
			continue;
		memcpy(&s, at + RTA_LENGTH(0), STATS_HEAD);
		*rx = s.rx_dropped;
		*tx = s.tx_dropped;
		return 0;
	}
	return -ENOENT;
}

int kernel_link_dropped(unsigned index, uint64_t *rx, uint64_t *tx)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg info;
	} ask = {.h = {.nlmsg_len = sizeof ask, .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST}, .info = {.ifi_index = (int)index}};
	uint64_t answer[2048];
	int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), rc = -errno;

	if (s < 0)
		return rc;
	ssize_t n = send(s, &ask, sizeof ask, 0) < 0 ? -1 : recv(s, answer, sizeof answer, 0);
	rc = n < 0 ? -errno : find_stats(answer, n, rx, tx);
	close(s);
	return rc;
}

int kernel_link_watch(void)
{
	struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (s >= 0 && !bind(s, (struct sockaddr *)&a, sizeof a))
		return s;
	int rc = -errno;
	if (s >= 0)
		close(s);
	return rc;
}

bool kernel_link_news(int fd)
{
	char message[8192];
	bool any = false;
	ssize_t n;

	while ((n = recv(fd, message, sizeof message, 0)) >= 0 || errno == ENOBUFS || errno == EINTR)
		any = true;
	return any;
}
