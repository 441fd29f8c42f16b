// SPDX-License-Identifier: Apache-2.0
/* Two ways of sending that Python has no call for. Built at test time by native.py. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#if __has_include(<liburing.h>)
#include <liburing.h>
#endif

#define BATCH 32

/* Sends len bytes in chunks by IORING_OP_SEND. Returns 0 or -errno; *sent is right in both cases. */
int uring_send(int fd, const char *data, size_t len, size_t chunk, size_t *sent)
{
#if __has_include(<liburing.h>)
	struct io_uring ring;
	struct io_uring_cqe *cqe;
	int err = io_uring_queue_init(BATCH, &ring, 0);

	*sent = 0;
	if (err)
		return err;
	while (!err && *sent < len) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
		size_t left = len - *sent;

		io_uring_prep_send(sqe, fd, data + *sent, left < chunk ? left : chunk,
				   MSG_NOSIGNAL);
		err = io_uring_submit_and_wait(&ring, 1);
		if (err >= 0)
			err = io_uring_wait_cqe(&ring, &cqe);
		if (err)
			break;
		if (cqe->res < 0)
			err = cqe->res;
		else
			*sent += cqe->res;
		io_uring_cqe_seen(&ring, cqe);
	}
	io_uring_queue_exit(&ring);
	return err;
#else
	(void)fd, (void)data, (void)len, (void)chunk;
	*sent = 0;
	return -ENOPKG; /* built without liburing */
#endif
}

/* Sends count datagrams of size bytes by sendmmsg, round robin to the peers (none: connected).
 * Returns 0 or -errno; *datagrams and *bytes say what the kernel took.
 */
int mmsg_send(int fd, const struct sockaddr_storage *peers, unsigned int peers_len,
	      socklen_t name_len, const char *data, size_t size, unsigned int count,
	      unsigned int *datagrams, size_t *bytes)
{
	struct mmsghdr batch[BATCH];
	struct iovec payload = {.iov_base = (void *)data, .iov_len = size};

	*datagrams = 0;
	*bytes = 0;
	while (*datagrams < count) {
		unsigned int room = count - *datagrams, n = room < BATCH ? room : BATCH;
		int done;

		memset(batch, 0, sizeof(batch));
		for (unsigned int i = 0; i < n; i++) {
			struct msghdr *hdr = &batch[i].msg_hdr;

			hdr->msg_iov = &payload;
			hdr->msg_iovlen = 1;
			if (peers_len) {
				hdr->msg_name = (void *)&peers[(*datagrams + i) % peers_len];
				hdr->msg_namelen = name_len;
			}
		}
		done = sendmmsg(fd, batch, n, 0);
		if (done < 0)
			return -errno;
		for (int i = 0; i < done; i++)
			*bytes += batch[i].msg_len;
		*datagrams += done;
	}
	return 0;
}
