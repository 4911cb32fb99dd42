"""The retail model's Sale, with the columns that Autonomy's table has."""

import uuid

from django.core.validators import MinValueValidator, RegexValidator
from django.db import models

from retail.lines import are_sale_lines


class Sale(models.Model):
    class Status(models.TextChoices):
        COMPLETED = "completed"
        VOIDED = "voided"

    class Loyalty(models.TextChoices):
        NOT_APPLICABLE = "notApplicable"
        PENDING = "pending"
        ACCRUED = "accrued"
        NO_MEMBERSHIP = "noMembership"

    class Settlement(models.TextChoices):
        PAID = "paid"
        ON_ACCOUNT = "onAccount"
        INVOICED = "invoiced"
        VOIDED = "voided"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    version = models.BigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    receipt_number = models.CharField(max_length=16, validators=[RegexValidator(r"^[0-9]+\Z")])
    status = models.TextField(choices=Status, default=Status.COMPLETED)
    sold_at = models.DateTimeField()
    business_date = models.DateField()
    customer_number = models.CharField(max_length=12, null=True)
    total_amount = models.DecimalField(max_digits=14, decimal_places=2, validators=[MinValueValidator(0)])
    currency = models.CharField(max_length=3, default="EUR", validators=[RegexValidator(r"^[A-Z]{3}\Z")])
    loyalty = models.TextField(choices=Loyalty, default=Loyalty.NOT_APPLICABLE)
    settlement = models.TextField(choices=Settlement, default=Settlement.PAID)
    store_id = models.UUIDField()
    customer_id = models.UUIDField(null=True)
    lines = models.JSONField(validators=[are_sale_lines])

    class Meta:
        db_table = "sale"
        constraints = [models.UniqueConstraint(fields=["store_id", "receipt_number"], name="sale_key")]
        indexes = [
            models.Index(fields=["business_date", "store_id"], name="sale_business_date_store"),
            models.Index(fields=["customer_number"], name="sale_customer_number"),
        ]
