// SPDX-License-Identifier: GPL-2.0
/*
 * A module for the tests: it declares a name and gets its number only when it
 * is loaded.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

static const struct file_operations probe_fops = {
	.owner	= THIS_MODULE,
	.open	= nonseekable_open,
};

static struct miscdevice probe_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "mapdev-probe",
	.fops	= &probe_fops,
};
module_misc_device(probe_device);

MODULE_ALIAS("devname:mapdev-probe");
MODULE_DESCRIPTION("a dynamic number behind a declared name");
MODULE_LICENSE("GPL");
