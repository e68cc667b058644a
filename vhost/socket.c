// socket: the file of a vhost-user socket: who holds it, whether it is stale, whose it is.
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "port.h"

#define NEAR 64 // numbers of descriptors

int vhost_socket_check_path(const char *path, char **error)
{
	struct sockaddr_un address;

	if (!path || path[0] != '/') {
		*error = vhost_sentence("the socket's path %s%sis not absolute: give a path that begins with /",
					path ? path : "", path ? " " : "");
		return -EINVAL;
	}
	if (strlen(path) >= sizeof(address.sun_path)) {
		*error = vhost_sentence("the socket's path is %zu bytes long, the kernel takes %zu: choose a shorter one",
					strlen(path), sizeof(address.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	return 0;
}

// Inode of a listening socket bound to the path, 0 if there is none. Only sockets of this network namespace are listed.
static unsigned long listening_inode(const char *path)
{
	FILE *file = fopen("/proc/net/unix", "re");
	char line[512], name[256];
	unsigned long inode, found = 0;
	unsigned int flags;

	if (!file)
		return 0;
	while (!found && fgets(line, sizeof(line), file)) {
		// Num: RefCount Protocol Flags Type St Inode Path; flag 0x10000 says that it listens (__SO_ACCEPTCON).
		if (sscanf(line, "%*[^:]: %*x %*x %x %*x %*x %lu %255[^\n]", &flags, &inode, name) == 3 && (flags & 0x10000) &&
		    !strcmp(name, path))
			found = inode;
	}
	fclose(file);
	return found;
}

static bool process_has(const char *pid, unsigned long inode)
{
	char folder[32], link[320], target[64], wanted[64];
	struct dirent *entry;
	bool found = false;
	DIR *fds;

	snprintf(folder, sizeof(folder), "/proc/%.10s/fd", pid);
	snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
	fds = opendir(folder);
	if (!fds)
		return false;
	while (!found && (entry = readdir(fds))) {
		ssize_t length;

		snprintf(link, sizeof(link), "%s/%s", folder, entry->d_name);
		length = readlink(link, target, sizeof(target) - 1);
		if (length < 0)
			continue;
		target[length] = '\0';
		found = !strcmp(target, wanted);
	}
	closedir(fds);
	return found;
}

// "process 812 (qemu-system-x86)", or "another process" if /proc doesn't say.
static void holder(unsigned long inode, char *buffer, size_t size)
{
	DIR *proc = inode ? opendir("/proc") : NULL;
	struct dirent *entry;
	char path[32], name[32] = "?";
	FILE *file;

	snprintf(buffer, size, "another process");
	if (!proc)
		return;
	while ((entry = readdir(proc))) {
		if (!isdigit((unsigned char)entry->d_name[0]) || !process_has(entry->d_name, inode))
			continue;
		snprintf(path, sizeof(path), "/proc/%.10s/comm", entry->d_name);
		file = fopen(path, "re");
		if (file) {
			if (fgets(name, sizeof(name), file))
				name[strcspn(name, "\n")] = '\0';
			fclose(file);
		}
		snprintf(buffer, size, "process %.10s (%s)", entry->d_name, name);
		break;
	}
	closedir(proc);
}

// Whether somebody accepts connections there. Asked by connecting, as /proc/net/unix knows this network namespace only.
static bool somebody_listens(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool listens;

	if (fd < 0)
		return true;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	listens = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno != ECONNREFUSED;
	close(fd);
	return listens;
}

int vhost_socket_clear_stale(const char *path, char **error)
{
	struct stat info;
	unsigned long inode;
	char who[64];

	if (lstat(path, &info) < 0) {
		if (errno == ENOENT)
			return 0;
		*error = vhost_sentence("%s: %s", path, strerror(errno));
		return -errno;
	}
	if (!S_ISSOCK(info.st_mode)) {
		*error = vhost_sentence("%s exists and is not a socket: remove it or choose another path", path);
		return -EEXIST;
	}
	// The table first: connecting would disturb a holder that serves one connection at a time, as QEMU does.
	inode = listening_inode(path);
	if (inode || somebody_listens(path)) {
		holder(inode, who, sizeof(who));
		*error = vhost_sentence("%s is held by %s", path, who);
		return -EADDRINUSE;
	}
	if (unlink(path) < 0 && errno != ENOENT) {
		*error = vhost_sentence("%s is left over and can't be removed: %s", path, strerror(errno));
		return -errno;
	}
	return 0;
}

static bool connected_at(int fd, const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNSPEC};
	socklen_t size = sizeof(a);
	int listens = 0;
	socklen_t room = sizeof(listens);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &room) < 0 || listens)
		return false;
	// The side that has connected has no name of its own, the other side has no name of its peer.
	if (getpeername(fd, (struct sockaddr *)&a, &size) == 0 && a.sun_family == AF_UNIX && size > sizeof(sa_family_t) &&
	    !strncmp(a.sun_path, path, sizeof(a.sun_path)))
		return true;
	memset(&a, 0, sizeof(a));
	size = sizeof(a);
	return getsockname(fd, (struct sockaddr *)&a, &size) == 0 && a.sun_family == AF_UNIX && size > sizeof(sa_family_t) &&
	       !strncmp(a.sun_path, path, sizeof(a.sun_path));
}

int vhost_socket_connection(const char *path)
{
	const struct timeval limit = {.tv_usec = 200000};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), next;

	// The library doesn't tell the number. A new one is the lowest that is free, so the search begins at the one that is next.
	if (fd < 0)
		return -1;
	close(fd);
	next = fd;
	for (fd--; fd >= 0 && !connected_at(fd, path); fd--)
		;
	// A lower number may have become free meanwhile.
	for (int i = next; fd < 0 && i < next + NEAR; i++)
		fd = connected_at(i, path) ? i : -1;
	if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
			setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0))
		return -1;
	return fd;
}

void vhost_socket_hang_up(const char *path, int fd)
{
	if (fd >= 0 && connected_at(fd, path))
		shutdown(fd, SHUT_RDWR);
}

static int find_user(const char *name, uid_t *uid, char **error)
{
	struct passwd *user;
	char *end;

	*uid = strtoul(name, &end, 10);
	if (name[0] && !*end)
		return 0;
	user = getpwnam(name);
	if (!user) {
		*error = vhost_sentence("there is no user %s on this host to own the socket", name);
		return -EINVAL;
	}
	*uid = user->pw_uid;
	return 0;
}

static int find_group(const char *name, gid_t *gid, char **error)
{
	struct group *group;
	char *end;

	*gid = strtoul(name, &end, 10);
	if (name[0] && !*end)
		return 0;
	group = getgrnam(name);
	if (!group) {
		*error = vhost_sentence("there is no group %s on this host to own the socket", name);
		return -EINVAL;
	}
	*gid = group->gr_gid;
	return 0;
}

int vhost_socket_set_access(const struct vhost_config *config, char **error)
{
	uid_t uid = -1;
	gid_t gid = -1;
	int status;

	if (config->owner && (status = find_user(config->owner, &uid, error)) < 0)
		return status;
	if (config->group && (status = find_group(config->group, &gid, error)) < 0)
		return status;
	if ((config->owner || config->group) && chown(config->path, uid, gid) < 0) {
		*error = vhost_sentence("%s can't be given to %s:%s: %s", config->path, config->owner ? config->owner : "",
					config->group ? config->group : "", strerror(errno));
		return -errno;
	}
	if (config->mode && chmod(config->path, config->mode & 0777) < 0) {
		*error = vhost_sentence("%s can't be given mode %04o: %s", config->path, config->mode & 0777, strerror(errno));
		return -errno;
	}
	return 0;
}

// "belongs to libvirt-qemu:kvm, mode 0755"
void vhost_socket_describe_access(const char *path, char *buffer, size_t size)
{
	char text[1024], user[64], group[64];
	struct passwd pw, *found_user = NULL;
	struct group gr, *found_group = NULL;
	struct stat info;

	if (stat(path, &info) < 0) {
		snprintf(buffer, size, "is in a folder that can't be searched");
		return;
	}
	snprintf(user, sizeof(user), "%u", info.st_uid);
	if (!getpwuid_r(info.st_uid, &pw, text, sizeof(text), &found_user) && found_user)
		snprintf(user, sizeof(user), "%s", pw.pw_name);
	snprintf(group, sizeof(group), "%u", info.st_gid);
	if (!getgrgid_r(info.st_gid, &gr, text, sizeof(text), &found_group) && found_group)
		snprintf(group, sizeof(group), "%s", gr.gr_name);
	snprintf(buffer, size, "belongs to %s:%s, mode %04o", user, group, info.st_mode & 0777);
}
