// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel writes into a map: mode and owner of an object.
 */
#include "map.h"

/**
 * mapdev_set_attr() - write mode and owner of an object
 * @view: the map
 * @id: the object's id
 * @cell: its cell
 * @attr: what to write; seq and id are not used
 *
 * Callers exclude each other. A cell that was used anew in this moment gets
 * the old id, and so does not count for its new owner.
 *
 * Return: 0, or -ESTALE when the object is gone.
 */
int mapdev_set_attr(const struct mapdev_view *view, u64 id, u32 cell,
		    const struct mapdev_attr *attr)
{
	struct mapdev_attr *to;
	u32 seq;

	if (!mapdev_owns_cell(view, id, cell))
		return -ESTALE;
	to = &view->attrs[cell];
	seq = READ_ONCE(to->seq) | 1;
	WRITE_ONCE(to->seq, seq);
	/* whoever sees what follows sees the odd number; with copied() */
	smp_wmb();
	WRITE_ONCE(to->mode, attr->mode);
	WRITE_ONCE(to->id, id);
	WRITE_ONCE(to->uid, attr->uid);
	WRITE_ONCE(to->gid, attr->gid);
	WRITE_ONCE(to->stamp, attr->stamp);
	/* pairs with load32() of every reader */
	smp_store_release(&to->seq, seq + 1);
	return 0;
}

/**
 * mapdev_carry() - take attributes from a map into the one that replaces it
 * @from: the old map
 * @to: the new one, in which an object has the same id and cell
 * @first: the first cell
 * @count: number of cells
 *
 * Callers exclude each other, and mapdev_set_attr().
 */
void mapdev_carry(const struct mapdev_view *from, const struct mapdev_view *to,
		  u32 first, u32 count)
{
	const struct mapdev_attr *cell;
	struct mapdev_attr attr;
	u64 id;

	for (; count && first < from->n_entries; count--, first++) {
		cell = &from->attrs[first];
		id = READ_ONCE(cell->id);
		if (!mapdev_owns_cell(from, id, first))
			continue;
		attr.mode = READ_ONCE(cell->mode);
		attr.uid = READ_ONCE(cell->uid);
		attr.gid = READ_ONCE(cell->gid);
		attr.stamp = READ_ONCE(cell->stamp);
		/* one that the new map has no more is no loss */
		mapdev_set_attr(to, id, first, &attr);
	}
}
