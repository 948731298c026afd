/*
 * bounded-runc: an OCI runtime for hosts whose capability bounding set lacks
 * CAP_SYS_RESOURCE. The engine asks for every capability it knows when a
 * container is privileged, and runc then fails with "unable to apply caps".
 * This program takes that one name out of the capability lists (and only
 * those) of the bundle's config.json or of the file given to `exec --process`,
 * then becomes runc. In C because every `docker exec` pays for its start.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef RUNC
#define RUNC "runc"
#endif

static const char UNAVAILABLE[] = "\"CAP_SYS_RESOURCE\"";
static const char *const LISTS[] = {"\"bounding\"", "\"effective\"", "\"inheritable\"",
				    "\"permitted\"", "\"ambient\""};

/* The value of option LONG or SHORT in argv ("--opt value" or "--opt=value"). */
static const char *option(char **argv, const char *lng, const char *shrt)
{
	size_t n = strlen(lng);

	for (; *argv; argv++) {
		if ((!strcmp(*argv, lng) || !strcmp(*argv, shrt)) && argv[1])
			return argv[1];
		if (!strncmp(*argv, lng, n) && (*argv)[n] == '=')
			return *argv + n + 1;
	}
	return NULL;
}

static char *skip_space(char *s)
{
	while (isspace((unsigned char)*s))
		s++;
	return s;
}

/* Remove the name with one neighbouring comma from the array that opens at s. */
static void prune_array(char *open)
{
	char *end = strchr(open, ']');
	char *hit, *from, *to;

	if (!end)
		return;
	hit = memmem(open, (size_t)(end - open), UNAVAILABLE, sizeof(UNAVAILABLE) - 1);
	if (!hit)
		return;
	from = hit;
	to = skip_space(hit + sizeof(UNAVAILABLE) - 1);
	if (*to == ',') {
		to++;
	} else {
		while (from > open && isspace((unsigned char)from[-1]))
			from--;
		if (from[-1] == ',')
			from--;
	}
	memmove(from, to, strlen(to) + 1);
}

static void prune(char *text)
{
	for (size_t i = 0; i < sizeof(LISTS) / sizeof(*LISTS); i++) {
		char *at = text;

		while ((at = strstr(at, LISTS[i]))) {
			at = skip_space(at + strlen(LISTS[i]));
			if (*at != ':')
				continue;
			at = skip_space(at + 1);
			if (*at == '[')
				prune_array(at);
		}
	}
}

static void rewrite(const char *path)
{
	struct stat st;
	char temp[PATH_MAX];
	char *text;
	ssize_t got = 0;
	size_t length;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	/* Whatever is wrong with the file, runc reports it better. */
	if (fd < 0 || fstat(fd, &st) < 0 || !(text = malloc((size_t)st.st_size + 1)))
		return;
	for (length = 0; length < (size_t)st.st_size; length += (size_t)got)
		if ((got = read(fd, text + length, (size_t)st.st_size - length)) <= 0)
			return;
	close(fd);
	text[length] = 0;
	if (strlen(text) != length)
		return;
	prune(text);
	if (strlen(text) == length)
		return;
	length = strlen(text);
	if (snprintf(temp, sizeof(temp), "%s.bounded", path) >= (int)sizeof(temp))
		return;
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, st.st_mode & 07777);
	if (fd < 0)
		return;
	if (write(fd, text, length) != (ssize_t)length || close(fd) < 0 || rename(temp, path) < 0)
		unlink(temp);
}

int main(int argc, char **argv)
{
	char config[PATH_MAX];

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "create") || !strcmp(argv[i], "run")) {
			const char *bundle = option(argv + i, "--bundle", "-b");

			if (snprintf(config, sizeof(config), "%s/config.json", bundle ? bundle : ".") <
			    (int)sizeof(config))
				rewrite(config);
			break;
		}
		if (!strcmp(argv[i], "exec")) {
			const char *process = option(argv + i, "--process", "-p");

			if (process)
				rewrite(process);
			break;
		}
	}
	execvp(RUNC, argv);
	perror(RUNC);
	return 127;
}
