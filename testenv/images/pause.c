/* The sandbox container's process: holds the namespaces and reaps orphans. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_signal(int signal)
{
	if (signal == SIGCHLD)
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	else
		_exit(0);
}

int main(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NOCLDSTOP};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGCHLD, &action, NULL);
	for (;;)
		pause();
}
