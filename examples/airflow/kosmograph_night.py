"""A night under Airflow 3: one task lists, one waits for dispatcher and workers that run elsewhere, one reports.

`kosmograph` and KOSMOGRAPH_DB must be known where the tasks run. Exit code 3 says that some images failed: the night is
done all the same, and the task's log names the command that shows them. Each task may be tried again at any time: the
same job is listed again for what is new, and waited for again.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, chain

SOURCE = "s3://archive/{{ ds }}/"
JOB = "archive-{{ ds }}"
MODEL = "microsoft/kosmos-2-patch14-224"

with DAG(
    dag_id="kosmograph_night",
    schedule="0 20 * * *",
    start_date=datetime(2026, 11, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
):
    submit = BashOperator(
        task_id="submit",
        bash_command=f"kosmograph submit '{SOURCE}' --job '{JOB}' --model '{MODEL}'",
    )
    wait = BashOperator(
        task_id="wait",
        bash_command=f"kosmograph wait '{JOB}' --timeout 10h || test $? -eq 3",
        execution_timeout=timedelta(hours=11),
    )
    report = BashOperator(
        task_id="report",
        bash_command=f"kosmograph report '{JOB}' --out '/srv/reports/{JOB}.html'",
    )
    chain(submit, wait, report)
