"""The end of a tenant, in the local store: each function is one transaction's work on its connection."""

import json
from collections.abc import Sequence

from storage.local.database import Connection
from storage.local.schema import utc
from tts_core.errors import RequestRunning
from tts_core.store import Receipt


def find_receipt(tx: Connection, tenant_id: str) -> Receipt | None:
    row = tx.execute("select * from deleted_tenants where tenant_id = ?", (tenant_id,)).fetchone()
    return row and Receipt(tenant_id, row["deleted_at"], rows=json.loads(row["rows"]), objects=row["objects"])


def refuse_while_running(tx: Connection, tenant_id: str, *, now_s: float) -> None:
    """raises  RequestRunning: what is being spoken would leave audio behind that nobody could find"""
    (ends_at,) = tx.execute(
        "select max(lease_expires_at) from requests where tenant_id = ? and status = 'running'", (tenant_id,)
    ).fetchone()
    if ends_at is not None and ends_at > utc(now_s):
        raise RequestRunning("the tenant is disabled, but requests of it still run; delete it when they have ended")


def delete_tenant(tx: Connection, tenant_id: str, *, objects: int, now_s: float) -> Receipt:
    if receipt := find_receipt(tx, tenant_id):
        return receipt
    tx.execute("pragma defer_foreign_keys = on")
    rows = {"tenants": 1}
    of_tenant = [f"from {table} where {column} = ?" for table, column in _columns_of_tenants(tx)]
    for what in of_tenant:  # counted before the first of them takes others along
        (count,) = tx.execute(f"select count(*) {what}", (tenant_id,)).fetchone()
        rows[what.split()[1]] = count
    for what in [*of_tenant, "from tenants where id = ?"]:
        tx.execute(f"delete {what}", (tenant_id,))
    receipt = Receipt(tenant_id, utc(now_s), rows={table: n for table, n in rows.items() if n}, objects=objects)
    tx.execute(
        "insert into deleted_tenants (tenant_id, deleted_at, rows, objects) values (?, ?, ?, ?)",
        (tenant_id, receipt.deleted_at, json.dumps(receipt.rows), objects),
    )
    return receipt


def _columns_of_tenants(tx: Connection) -> Sequence[tuple[str, str]]:
    """Every table and column that says whose a row is, of whatever area."""
    found = tx.execute(
        """
        select tables.name as "table", columns.name as "column"
        from pragma_table_list as tables join pragma_table_info(tables.name) as columns
        where tables.schema = 'main' and tables.type = 'table' and tables.name <> 'deleted_tenants'
        and columns.name in ('tenant_id', 'grantee_id') order by 1, 2
        """
    )
    return tuple((row["table"], row["column"]) for row in found.fetchall())
