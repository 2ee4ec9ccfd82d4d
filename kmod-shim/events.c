// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel changed in the map, on its way to the daemon.
 */
#include <linux/cred.h>
#include <linux/pid_namespace.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

/* a chown -R of a large /dev; what is more is told as an overflow */
#define MAX_EVENTS	1024U

/* count of changes of mode and owner; under mapdevfs_attr_lock */
u64 mapdevfs_changes;

static struct mapdev_event *events;
static unsigned int first_event, n_events;
static bool overflowed;
static DEFINE_SPINLOCK(events_lock);
static DECLARE_WAIT_QUEUE_HEAD(events_wait);

/**
 * mapdevfs_tell() - count a change of attributes, and tell the daemon
 * @id: the object
 * @cell: its cell
 * @what: MAPDEV_EV_*
 * @attr: as they are now
 * @asked: by the current process; false when nobody asked for it
 *
 * Called under mapdevfs_attr_lock and RCU, when the map has been written.
 */
void mapdevfs_tell(u64 id, u32 cell, u32 what, const struct mapdev_attr *attr,
		   bool asked)
{
	const struct mapdevfs_map *map = rcu_dereference(mapdevfs_map);
	struct mapdev_event *event;

	mapdevfs_changes++;
	/* whoever sees the count sees the attributes; with an acquire */
	smp_store_release(&map->view.hdr->chg, mapdevfs_changes);
	atomic64_inc(&mapdevfs_counters.events);
	spin_lock(&events_lock);
	if (n_events == MAX_EVENTS) {
		if (!overflowed)
			atomic64_inc(&mapdevfs_counters.overflows);
		overflowed = true;
	} else {
		event = &events[(first_event + n_events++) % MAX_EVENTS];
		event->id = id;
		event->cell = cell;
		event->reserved = 0;
		event->chg = mapdevfs_changes;
		event->stamp = attr->stamp;
		event->what = what;
		event->mode = attr->mode;
		event->uid = attr->uid;
		event->gid = attr->gid;
		event->pid = 0;
		event->by = 0;
		if (asked) {
			event->pid = task_tgid_nr_ns(current, &init_pid_ns);
			event->by = from_kuid_munged(&init_user_ns,
						     current_uid());
		}
	}
	spin_unlock(&events_lock);
	wake_up_interruptible(&events_wait);
}

static bool has_events(void)
{
	return READ_ONCE(n_events) || READ_ONCE(overflowed);
}

static bool next_event(struct mapdev_event *event)
{
	bool found = true;

	spin_lock(&events_lock);
	if (overflowed) {
		/* the others would be compared too */
		memset(event, 0, sizeof(*event));
		event->what = MAPDEV_EV_OVERFLOW;
		overflowed = false;
		n_events = 0;
	} else if (n_events) {
		*event = events[first_event];
		first_event = (first_event + 1) % MAX_EVENTS;
		n_events--;
	} else {
		found = false;
	}
	spin_unlock(&events_lock);
	return found;
}

/* what was taken off and could not be handed out is to be compared too */
static void lose_event(void)
{
	spin_lock(&events_lock);
	overflowed = true;
	spin_unlock(&events_lock);
}

/**
 * mapdevfs_read_events() - hand out what is told, for read()
 * @to: where to
 * @size: room there
 * @wait: for one, when there is none
 *
 * Return: bytes, a multiple of an event's, or an error.
 */
ssize_t mapdevfs_read_events(char __user *to, size_t size, bool wait)
{
	struct mapdev_event event;
	size_t done = 0;
	int err;

	if (size < sizeof(event))
		return -EINVAL;
	while (size - done >= sizeof(event)) {
		if (!next_event(&event)) {
			if (done)
				break;
			if (!wait)
				return -EAGAIN;
			err = wait_event_interruptible(events_wait,
						       has_events());
			if (err)
				return err;
			continue;
		}
		if (copy_to_user(to + done, &event, sizeof(event))) {
			lose_event();
			return done ? done : -EFAULT;
		}
		done += sizeof(event);
	}
	return done;
}

/**
 * mapdevfs_poll_events() - whether there is something to be read
 * @file: the open device
 * @table: of poll()
 *
 * Return: true when there is.
 */
bool mapdevfs_poll_events(struct file *file, struct poll_table_struct *table)
{
	poll_wait(file, &events_wait, table);
	return has_events();
}

/**
 * mapdevfs_forget_events() - drop what is told: nobody is there to hear it
 */
void mapdevfs_forget_events(void)
{
	spin_lock(&events_lock);
	first_event = 0;
	n_events = 0;
	overflowed = false;
	spin_unlock(&events_lock);
}

/**
 * mapdevfs_events_init() - make room for what is told
 *
 * Return: 0 or -ENOMEM.
 */
int mapdevfs_events_init(void)
{
	events = kvcalloc(MAX_EVENTS, sizeof(*events), GFP_KERNEL);
	return events ? 0 : -ENOMEM;
}

/**
 * mapdevfs_events_exit() - free that room
 */
void mapdevfs_events_exit(void)
{
	kvfree(events);
}
